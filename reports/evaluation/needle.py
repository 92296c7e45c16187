"""Needles: sentences with a secret number, hidden in a long text, to be found again."""

from __future__ import annotations

import numpy as np

from reports.evaluation.example import Example, Request, largest
from reports.evaluation.filler import MOST_SENTENCES, sentences

SEVERAL = 3  # needles of the multi-needle task
CITIES = (
    "Lisbon", "Oslo", "Nairobi", "Lima", "Quebec", "Hanoi", "Cairo", "Riga", "Kyoto", "Dublin",
    "Tunis", "Quito", "Perth", "Malmo", "Accra", "Porto", "Turin", "Delhi", "Leeds", "Osaka",
)  # fmt: skip
HEAD = "Some special numbers are hidden in the text below. Remember them.\n\n"


def needle(request: Request) -> list[Example]:
    """Return examples with one needle each, at evenly spread depths of the text."""
    return [_example("needle", request, i, 1) for i in range(request.n)]


def multi_needle(request: Request) -> list[Example]:
    """Return examples with several needles, all asked for."""
    return [_example("multi_needle", request, i, SEVERAL) for i in range(request.n)]


def _example(task: str, request: Request, index: int, needles: int) -> Example:
    rng = np.random.default_rng([request.seed, index, needles])
    cities = [CITIES[i] for i in rng.permutation(len(CITIES))[:needles]]
    numbers = [str(v) for v in rng.choice(np.arange(1000, 10000), needles, replace=False)]
    hidden = [f"The special number of {c} is {v}." for c, v in zip(cities, numbers, strict=True)]
    # A van der Corput sequence fills depths evenly whatever n is.
    depths = [(_radical_inverse(index) + k / needles) % 1.0 for k in range(needles)]
    document, text = sentences(request.prompts, rng, MOST_SENTENCES)
    question = _question(cities)

    def build(k: int) -> str:
        lines = text[:k]
        for depth, sentence in sorted(zip(depths, hidden, strict=True), reverse=True):
            lines = [*lines[: round(depth * k)], sentence, *lines[round(depth * k) :]]
        return f"{HEAD}{' '.join(lines)}\n\n{question}"

    k = largest(build, len(text), request.context, request.count)
    return Example(
        task=task,
        document=document,
        prompt=build(k),
        answer=tuple(numbers),
        reply=" ".join(hidden),
        metric="exact" if needles == 1 else "every",
        max_tokens=16 + 16 * needles,
        details={"depths": [round(depth, 4) for depth in depths]},
    )


def _question(cities: list[str]) -> str:
    if len(cities) == 1:
        return f"What is the special number of {cities[0]}? Answer in one short sentence."
    listed = ", ".join(cities[:-1]) + f" and {cities[-1]}"
    return f"What are the special numbers of {listed}? Answer with one short sentence for each."


def _radical_inverse(index: int) -> float:
    value, scale = 0.0, 0.5
    while index:
        index, bit = divmod(index, 2)
        value += bit * scale
        scale /= 2
    return value
