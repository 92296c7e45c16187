"""What is kept of a page's keys so that it can be scored without reading it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of a page's keys per channel, ``[Hkv, n_pages, D]`` each."""

    mean: Tensor
    var: Tensor


class Bounds(NamedTuple):
    """Least and greatest key of a page per channel, ``[Hkv, n_pages, D]`` each (Quest)."""

    low: Tensor
    high: Tensor


PageStats = Moments | Bounds
