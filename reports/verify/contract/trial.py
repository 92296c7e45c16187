"""One trial of a rule: which signals a law is run on, and how a broken rule is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.ops import Array
from reports.verify.contract.signals import leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """``steps`` signals of ``lanes`` lanes drawn from ``seed``; a field to spoil, where asked."""

    seed: int = 0
    lanes: int = 16
    steps: int = 40
    field: str = ""
    value: str = "nan"  # nan, inf or -inf


class Broken(Exception):
    """A rule is broken: how, in how many lanes, and where first."""

    def __init__(
        self, message: str, count: int = 1, lane: int | None = None, step: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.count = max(1, count)
        self.lane = lane
        self.step = step


def ensure(condition: Any, message: str) -> None:
    """Raise ``Broken`` unless ``condition`` holds."""
    if not condition:
        raise Broken(message)


def ensure_lanes(good: Array, message: str, step: int | None = None) -> None:
    """Raise ``Broken`` unless every value of ``good``, bool ``[B]`` or ``[steps, B]``, is true."""
    bad = ~np.asarray(good)
    if not bad.any():
        return
    by_lane = bad.reshape(-1, bad.shape[-1])
    step = int(by_lane.any(axis=1).argmax()) if step is None else step
    lanes = by_lane.any(axis=0)
    raise Broken(message, int(lanes.sum()), int(by_lane[by_lane.any(axis=1)][0].argmax()), step)


def ensure_same(got: Array, want: Array, message: str, step: int | None = None) -> None:
    """Raise ``Broken`` unless two arrays, lanes last, hold the same values bit for bit.

    Two NaN are the same whatever their payload.
    """
    got, want = np.asarray(got), np.asarray(want)
    ensure(got.shape == want.shape, f"{message}: shape {got.shape} for {want.shape}")
    same = (got == want) & (np.signbit(got) == np.signbit(want))
    same |= np.isnan(got) & np.isnan(want)
    if not same.all():
        first = np.unravel_index(np.argmin(same), same.shape)
        ensure_lanes(same, f"{message}: {got[first]:.9g} for {want[first]:.9g}", step)


def bytes_of(tree: Array) -> list[bytes]:
    """Return the contents of every leaf."""
    return [np.asarray(leaf).tobytes() for leaf in leaves(tree)]
