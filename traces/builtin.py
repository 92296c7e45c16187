"""A few prompts of our own, for runs without the public prompt sets."""

from __future__ import annotations

BUILTIN_TEXTS: tuple[tuple[str, str, str | None], ...] = (  # task class, text, answer
    (
        "instruction",
        "List five things to check before a long bicycle ride, one short line each.",
        None,
    ),
    (
        "instruction",
        "Rewrite this politely in two sentences: the report is late again and nobody told us why.",
        None,
    ),
    (
        "code",
        "Write a Python function that returns the longest run of equal items in a list.",
        None,
    ),
    (
        "code",
        "Write an SQL query for the three customers with the most orders in each country.",
        None,
    ),
    (
        "reasoning",
        "A tank holds 240 litres. One pipe fills 15 litres a minute while a leak loses 3 litres a "
        'minute. After how many minutes is the empty tank full? End with "####" and the number.',
        "20",
    ),
    (
        "reasoning",
        "Mira buys 4 notebooks at 3 coins each and pays with 20 coins. She spends half of her "
        'change on a pen. How many coins are left? End with "####" and the number.',
        "4",
    ),
    (
        "freeform",
        "Tell a short story about a lighthouse keeper who receives a letter by mistake.",
        None,
    ),
    ("freeform", "Explain to a curious ten-year-old why the sea is salty.", None),
    ("freeform", "Argue for and against a four-day working week in a small bakery.", None),
)
