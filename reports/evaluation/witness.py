"""What each row's attention read in one step, and the true mass it left out."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.attention import StepInputs
from kernels.paged_decode.native import decode_pages


class PageWitness:
    """Sums one step over layers and KV heads, lane by lane; a ``ChoiceWitness``.

    With ``exact`` it also computes, in the layers that prune, how much of the attention the row's
    own queries would have given to the pages it did not read.
    """

    def __init__(self, coverage: Tensor, dense_layers: int, *, exact: bool) -> None:
        """Watch rows of ``coverage`` float32 ``[B]``; the first layers may be dense."""
        lanes = len(coverage)
        self._coverage, self._dense_layers, self._exact = coverage, dense_layers, exact
        self.read = torch.zeros(lanes, dtype=torch.int64)
        self.dense = torch.zeros(lanes, dtype=torch.int64)
        self.scored = torch.zeros(lanes, dtype=torch.int64)
        self._dropped = torch.zeros(lanes, dtype=torch.float64)
        self._layers = 0  # that prune

    def layer(
        self, layer: int, q: Tensor, pages: Tensor, kept: Tensor, scaling: float, step: StepInputs
    ) -> None:
        """Add one layer: queries ``[B, Hkv, G, D]``, listed pages ``[B, Hkv, m]`` and kept."""
        rows = step.decode
        assert rows is not None
        heads = q.shape[1]
        self.read += kept.sum(1)
        self.dense += heads * rows.n_pages
        if layer < self._dense_layers:
            return
        self.scored += torch.where(self._coverage < 1.0, heads * rows.n_pages, 0)
        self._layers += 1
        if not self._exact:
            return
        k, v = step.cache.layer_pages(layer)
        everything = rows.table[:, None].expand(-1, heads, -1)
        all_kept = rows.n_pages[:, None].expand(-1, heads)
        part = decode_pages(q, k, v, pages, kept, rows.tails, scaling).lse
        whole = decode_pages(q, k, v, everything, all_kept, rows.tails, scaling).lse
        left_out = -torch.expm1((part - whole).double().clamp_max(0.0))  # [B, Hkv, G]
        self._dropped += left_out.mean((1, 2))

    def dropped(self) -> list[float] | None:
        """Return each row's mean true dropped mass over pruning layers; None if not measured."""
        if not self._exact or not self._layers:
            return None
        return (self._dropped / self._layers).tolist()
