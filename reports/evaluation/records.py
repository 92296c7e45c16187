"""Retrieval from records: key-value pairs and numbered lines, cut or made to fit the context."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np

from reports.evaluation.example import Example, Request, largest
from reports.evaluation.files import chosen, read_rows

MOST_PAIRS, MOST_LINES = 300, 1200
KV_FILE = "kv_retrieval_75.jsonl.gz"
LINES_FILE = "longchat_lines_300.jsonl.gz"  # the longer of the two; cut to the context
ADJECTIVES = ("amber", "brisk", "calm", "dusty", "eager", "faint", "gentle", "hollow", "icy",
              "jolly", "keen", "lively", "mellow", "narrow", "odd", "plain")  # fmt: skip
NOUNS = ("anchor", "basket", "candle", "dagger", "easel", "feather", "goblet", "hammer", "island",
         "jacket", "kettle", "ladder", "mirror", "needle", "oyster", "pillow")  # fmt: skip


def key_value(request: Request) -> list[Example]:
    """Return examples asking for one value of a JSON object of identifiers.

    The pairs are those of "Lost in the Middle" (arXiv 2307.03172) where the file is there.
    """
    rng = np.random.default_rng([request.seed, 1])
    if request.prompts is None:
        found = [_made_up_pairs(rng, i) for i in range(request.n)]
    else:
        rows = chosen(read_rows(request.prompts / KV_FILE), request.n, rng, "kv")
        found = [
            (f"kv_retrieval_75/{number}", row["ordered_kv_records"], row["key"])
            for number, row in rows
        ]
    return [_key_value(request, *row) for row in found]


def lines(request: Request) -> list[Example]:
    """Return examples asking for the number on one named line (LongChat's line retrieval)."""
    rng = np.random.default_rng([request.seed, 2])
    if request.prompts is None:
        found = [_made_up_lines(rng, i) for i in range(request.n)]
    else:
        rows = chosen(read_rows(request.prompts / LINES_FILE), request.n, rng, "lines")
        found = [_longchat_lines(number, row) for number, row in rows]
    return [_lines(request, *row) for row in found]


def _key_value(request: Request, document: str, pairs: list[Any], key: str) -> Example:
    place = [pair[0] for pair in pairs].index(key)
    value = pairs[place][1]

    def build(k: int) -> str:
        shown = json.dumps(dict(around(pairs, place, k)), indent=1)
        return (
            "The JSON object below maps identifiers to identifiers.\n\n"
            f'{shown}\n\nWhich value belongs to the key "{key}"? Reply with the value alone.'
        )

    k = largest(build, len(pairs), request.context, request.count)
    return Example(
        task="kv",
        document=document,
        prompt=build(k),
        answer=(value,),
        reply=f'The value that belongs to the key "{key}" is "{value}".',
        metric="exact",
        max_tokens=64,
        details={"records": k},
    )


def _lines(request: Request, document: str, record: list[tuple[str, str]], place: int) -> Example:
    name, number = record[place]

    def build(k: int) -> str:
        shown = "\n".join(
            f"line {a}: REGISTER_CONTENT is <{b}>" for a, b in around(record, place, k)
        )
        return (
            "Below is a record of lines. Each begins with its name and ends with a number.\n\n"
            f"{shown}\n\nWhat is the <REGISTER_CONTENT> in line {name}? State the number."
        )

    k = largest(build, len(record), request.context, request.count)
    return Example(
        task="lines",
        document=document,
        prompt=build(k),
        answer=(number,),
        reply=f"The <REGISTER_CONTENT> in line {name} is <{number}>.",
        metric="exact",
        max_tokens=40,
        details={"records": k},
    )


def around(records: list[Any], place: int, k: int) -> list[Any]:
    """Return ``k`` neighbouring records, the one at ``place`` among them at its relative depth."""
    first = round(place * (len(records) - k) / max(1, len(records) - 1))
    return records[first : first + k]


def _longchat_lines(number: int, row: dict[str, Any]) -> tuple[str, list[tuple[str, str]], int]:
    record = []
    for line in row["prompt"].splitlines():
        head, mark, tail = line.partition(": REGISTER_CONTENT is <")
        if mark and head.startswith("line "):
            record.append((head.removeprefix("line "), tail.rstrip(">")))
    names = [name for name, _ in record]
    return f"longchat_lines_300/{number}", record, names.index(row["random_idx"][0])


def _made_up_pairs(rng: np.random.Generator, i: int) -> tuple[str, list[list[str]], str]:
    ids = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(2 * MOST_PAIRS)]
    pairs = [list(pair) for pair in zip(ids[::2], ids[1::2], strict=True)]
    return f"made_up/{i}/{ids[0][:8]}", pairs, pairs[int(rng.integers(len(pairs)))][0]


def _made_up_lines(rng: np.random.Generator, i: int) -> tuple[str, list[tuple[str, str]], int]:
    names = [f"{a}-{n}-{k}" for k in range(5) for a in ADJECTIVES for n in NOUNS][:MOST_LINES]
    order = rng.permutation(len(names))
    record = [(names[j], str(int(rng.integers(1000, 50000)))) for j in order]
    return f"made_up/{i}/{record[0][1]}", record, int(rng.integers(len(record)))
