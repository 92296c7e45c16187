"""What one decode step would have kept at each recorded coverage, gathered layer by layer.

Exact attention weights and the practical estimate of page mass are both at hand while a dense row
is computed; from them come kept shares, the true dropped mass and the evictable share, for each
scorer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backend.attention import StepInputs
from kernels.page_select.naive import Pins, pages_to_keep, rank_pages
from traces.schema import COVERAGES, SCORERS, C, S

_COVERAGES = torch.tensor(COVERAGES, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class PageCurves:
    """Shares at each scorer and coverage, float32 ``[S, C]`` each."""

    kept_mean: np.ndarray
    kept_max: np.ndarray
    dropped: np.ndarray
    evictable: np.ndarray


class PageCurveObserver:
    """Gathers page masses of the dense decode rows of one step; a ``PageObserver``.

    Layers are only collected as they pass and reduced together: one call per row instead of one per
    layer and row.
    """

    def __init__(self) -> None:
        """Start with no rows."""
        self._exact: dict[int, list[Tensor]] = {}  # request id -> [Hkv, n] per layer
        self._estimate: dict[int, list[Tensor]] = {}
        self._pins = Pins()

    def pages(self, request_id: int, weights: Tensor, estimate: Tensor, step: StepInputs) -> None:
        """Add one layer of one row: exact weights ``[Hkv, G, L]``, estimated mass ``[Hkv, n]``."""
        n, size = estimate.shape[1], step.cache.page_tokens
        padded = F.pad(weights.mean(1), (0, n * size - weights.shape[2]))
        self._exact.setdefault(request_id, []).append(padded.unflatten(1, (n, size)).sum(-1))
        self._estimate.setdefault(request_id, []).append(estimate)
        self._pins = step.pins

    def take(self, request_id: int) -> PageCurves:
        """Return and forget a row's curves; a row not seen in decode kept everything."""
        if request_id not in self._exact:
            ones, zeros = np.ones((S, C), np.float32), np.zeros((S, C), np.float32)
            return PageCurves(ones, ones, zeros, zeros)
        exact = torch.cat(self._exact.pop(request_id)).float().cpu()  # [layers * Hkv, n]
        estimate = torch.cat(self._estimate.pop(request_id)).float().cpu()
        curves = [
            _reduce(exact if scorer == "oracle" else estimate, exact, self._pins)
            for scorer in SCORERS
        ]
        return PageCurves(*(np.stack(part) for part in zip(*curves, strict=True)))


def _reduce(
    mass: Tensor, exact: Tensor, pins: Pins
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return kept mean, kept max, dropped mass and evictable share of one scorer, ``[C]`` each.

    Args:
        mass: the scorer's page mass ``[heads, n]`` over all layers; exact: true mass, alike.
    """
    n = mass.shape[1]
    count = torch.tensor([n])
    order = rank_pages(mass[None], count, pins)[0]
    ordered = mass.gather(1, order)
    kept = pages_to_keep(ordered[None], count, _COVERAGES[None], pins)[0]  # [heads, C]
    reached = exact.gather(1, order).cumsum(1).gather(1, kept - 1)
    share = kept.float() / n
    rank = order.argsort(1)
    wanted = (rank[:, None, :] < kept[:, :, None]).any(0)  # [C, n]
    parts = (
        share.mean(0),
        share.amax(0),
        (1.0 - reached).clamp(0.0, 1.0).mean(0),
        1.0 - wanted.float().mean(-1),
    )
    return tuple(part.numpy() for part in parts)  # type: ignore[return-value]  # four of them
