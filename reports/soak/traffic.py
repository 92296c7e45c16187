"""A random mix of requests: shared beginnings, hang-ups, kill switches, and some that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.serving.request import Request
from reports.soak.remnants import FIRST_ID

STEMS = 6  # beginnings that prompts share
LOWEST_TOKEN = 8  # ids below are often special ones; the tiny model fails on one of them
TEMPERATURES = (0.0, 0.7, 1.0, 1.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How long requests are, in tokens, and the share of each mishap."""

    longest_stem: int = 96
    longest_prompt: int = 40  # after the stem
    longest_output: int = 48
    cancelled: float = 0.06
    switched_off: float = 0.04
    refused: float = 0.03

    def __post_init__(self) -> None:
        for name in ("longest_stem", "longest_prompt", "longest_output"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1", **{name: getattr(self, name)})
        for name in ("cancelled", "switched_off", "refused"):
            share = getattr(self, name)
            require(0.0 <= share <= 1.0, f"{name} must lie in [0, 1]", **{name: share})

    @property
    def longest(self) -> int:
        """The most tokens a well-formed request has, prompt and output together."""
        return self.longest_stem + self.longest_prompt + self.longest_output


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, its prompt, and what its user will do."""

    request: Request
    prompt: tuple[int, ...]
    cancel_after: int | None  # tokens until its user hangs up
    off_after: int | None  # tokens until the kill switch
    well_formed: bool


def arrivals(mix: Mix, *, vocabulary: int, max_context: int, seed: int) -> Iterator[Arrival]:
    """Yield requests without end; the same ones for the same seed."""
    require(
        mix.longest <= max_context,
        f"the longest request must fit max_context = {max_context}",
        longest=mix.longest,
    )
    rng = np.random.default_rng(seed)
    stems = [_tokens(rng, mix.longest_stem, vocabulary) for _ in range(STEMS)]
    request_id = FIRST_ID
    while True:
        stem = stems[rng.integers(STEMS)][: rng.integers(mix.longest_stem + 1)]
        own = _tokens(rng, int(rng.integers(1, mix.longest_prompt + 1)), vocabulary)
        prompt, most = (*stem, *own), int(rng.integers(1, mix.longest_output + 1))
        refused = rng.random() < mix.refused
        if refused:
            prompt, most = _spoil(rng, prompt, most, vocabulary, max_context)
        yield Arrival(
            request=Request(
                request_id=request_id,
                prompt_tokens=len(prompt),
                max_tokens=most,
                temperature=TEMPERATURES[rng.integers(len(TEMPERATURES))],
                seed=int(rng.integers(2**31)),
                client=f"client {rng.integers(4)}",
            ),
            prompt=prompt,
            cancel_after=int(rng.integers(most)) if rng.random() < mix.cancelled else None,
            off_after=int(rng.integers(most)) if rng.random() < mix.switched_off else None,
            well_formed=not refused,
        )
        request_id += 1


def _tokens(rng: np.random.Generator, n: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(rng.integers(LOWEST_TOKEN, vocabulary, n).tolist())


def _spoil(
    rng: np.random.Generator, prompt: tuple[int, ...], most: int, vocabulary: int, context: int
) -> tuple[tuple[int, ...], int]:
    """Make a request nobody can serve: a token outside the vocabulary, or too many tokens."""
    if rng.random() < 0.5:
        return (*prompt[:-1], vocabulary), most
    return prompt, context + 1
