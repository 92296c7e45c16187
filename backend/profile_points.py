"""Timed steps gathered by stage: one point per kind of step, from all passes over the grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.profile_stage import Step

FEATURES = ("n_decode", "kv_tokens_read", "prompt_tokens", "prompt_squares", "pages_scored")
CLIP = 3.0  # of the median: more is a fault, not a slow spell
Pass = Sequence[Sequence[Step]]  # by stage, the steps it took


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The steps of a stage that are alike: mean features, and what they take in the long run."""

    stage: int
    kind: str
    n_decode: float
    kv_tokens_read: float
    prompt_tokens: float
    prompt_squares: float
    kv_longest: float
    pages_scored: float
    seconds: float  # mean, where a sample of more than CLIP medians counts as that
    spread: float  # interquartile range over the median
    samples: int


def points_of(passes: Sequence[Pass]) -> list[Point]:
    """Gather the passes' steps by stage.

    A point is what its steps take in the mean, for a server's latency is a sum of steps, slow ones
    among them. A median will not do: a machine may have two speeds, a minute of each, and then the
    median of a few repeats is one of them. The first step of a stage that prunes stands apart, for
    its query is not the model's own.
    """
    groups: dict[tuple[int, bool], list[Step]] = defaultdict(list)
    for taken in passes:
        for stage, steps in enumerate(taken):
            for index, step in enumerate(steps):
                groups[stage, index == 0 and step.kind == "sparse"].append(step)
    return [_point(stage, steps) for (stage, _), steps in sorted(groups.items())]


def points_table(points: Sequence[Point]) -> dict[str, np.ndarray]:
    """Return the points' features and seconds by name, float64 ``[N]`` each."""
    names = (*FEATURES, "kv_longest", "seconds")
    return {name: np.array([getattr(p, name) for p in points], dtype=float) for name in names}


def ranges_of(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """Return the range of each feature; from 0 where some step has none of it."""
    table = points_table(points)
    return {name: (float(table[name].min()), float(table[name].max())) for name in FEATURES}


def _point(stage: int, steps: Sequence[Step]) -> Point:
    taken = np.array([step.seconds for step in steps])
    low, median, high = np.quantile(taken, (0.25, 0.5, 0.75))
    return Point(
        stage=stage,
        kind=steps[0].kind,
        n_decode=_mean(steps, "n_decode"),
        kv_tokens_read=_mean(steps, "kv_tokens_read"),
        prompt_tokens=_mean(steps, "prompt_tokens"),
        prompt_squares=_mean(steps, "prompt_squares"),
        kv_longest=_mean(steps, "kv_longest"),
        pages_scored=_mean(steps, "pages_scored"),
        seconds=float(np.minimum(taken, CLIP * median).mean()),
        spread=float((high - low) / median),
        samples=len(steps),
    )


def _mean(steps: Sequence[Step], name: str) -> float:
    return float(np.mean([getattr(step, name) for step in steps]))
