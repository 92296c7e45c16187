"""Text to hide things in: paragraphs of public-domain books, or made-up ones without the files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np

from controllers.core import require

BOOKS = ("moby_dick", "pride_and_prejudice", "sherlock_holmes")
MOST_SENTENCES = 2000  # enough for 32 k tokens

_WHO = ("The miller", "A clerk", "My neighbour", "The old captain", "Her sister", "The gardener",
        "A traveller", "The schoolmaster", "Our cook", "The watchman")  # fmt: skip
_DID = ("walked to", "talked about", "painted", "remembered", "wrote a letter about", "sold",
        "complained of", "searched", "described", "carried water past")  # fmt: skip
_WHAT = ("the harbour", "the long bridge", "an empty barn", "the market square", "the orchard",
         "a narrow lane", "the chapel", "a broken cart", "the mill pond", "the hill")  # fmt: skip
_WHEN = ("before breakfast", "in the rain", "on a quiet morning", "late in the evening",
         "while the bells rang", "as the fog lifted", "in early spring", "without a word",
         "with some regret", "for the third time")  # fmt: skip


def sentences(prompts: Path | None, rng: np.random.Generator, most: int) -> tuple[str, list[str]]:
    """Return a document's name and up to ``most`` of its sentences, from a random place on.

    With the folder of public prompts the document is one of three books; without it, sentences
    are put together from word lists.
    """
    require(most >= 1, "most must be >= 1", most=most)
    if prompts is None:
        number = int(rng.integers(1 << 30))
        return f"made_up/{number}", [_sentence(rng) for _ in range(most)]
    book = BOOKS[int(rng.integers(len(BOOKS)))]
    whole = _book(prompts / "haystack" / f"{book}.txt.gz")
    first = int(rng.integers(max(1, len(whole) - most)))
    return f"{book}/{first}", whole[first : first + most]


def _book(path: Path) -> list[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = " ".join(file.read().split())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    return re.split(r"(?<=[.!?])\s+(?=[A-Z\"'])", text)


def _sentence(rng: np.random.Generator) -> str:
    who, did, what, when = (
        words[int(rng.integers(len(words)))] for words in (_WHO, _DID, _WHAT, _WHEN)
    )
    return f"{who} {did} {what} {when}."
