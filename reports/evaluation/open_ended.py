"""A task without an answer: summarise a long passage; only the distance to dense is measured."""

from __future__ import annotations

import numpy as np

from reports.evaluation.example import Example, Request, largest
from reports.evaluation.filler import MOST_SENTENCES, sentences

ASK = "Write a detailed summary of the passage above, in your own words."


def book(request: Request) -> list[Example]:
    """Return examples asking for a summary of a passage of a book."""
    found = []
    for index in range(request.n):
        rng = np.random.default_rng([request.seed, index, 7])
        document, text = sentences(request.prompts, rng, MOST_SENTENCES)
        found.append(_example(request, document, text))
    return found


def _example(request: Request, document: str, text: list[str]) -> Example:
    def build(k: int) -> str:
        return f"{' '.join(text[:k])}\n\n{ASK}"

    k = largest(build, len(text), request.context, request.count)
    return Example(
        task="book",
        document=document,
        prompt=build(k),
        answer=(),
        reply="",
        metric="none",
        max_tokens=160,
    )
