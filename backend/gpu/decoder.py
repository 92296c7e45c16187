"""The forward pass of a decode step with fixed shapes: every launch can go into a CUDA graph.

The CPU engine runs transformers' own modules on a step of any shape; a graph wants one shape and no
decision on the host, so this pass is written out. Tests hold it against transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.gpu.cache import DeviceCache, RowPages
from backend.gpu.weights import LayerWeights, Weights
from controllers.selection import Pins
from kernels.twins import Twins

Projected = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Reads:
    """How a step's attention reads pages."""

    coverage: Tensor | None = None  # float32 [B]; None: every page, without scoring
    pins: Pins = field(default_factory=Pins)
    masses: bool = False  # also take each page's attention mass, as eviction needs
    kept: list[Tensor] | None = None  # filled with each layer's kept pages, int32 [B, Hkv]


class Decoder:
    """A decoder's weights and the kernels it runs on; stateless between calls."""

    def __init__(self, weights: Weights, twins: Twins, *, compiled: bool = False) -> None:
        """Hold them; ``compiled`` has torch.compile fuse what lies between matrix products."""
        self.weights, self.twins = weights, twins
        self.scaling = weights.shape.head_dim**-0.5
        self._before: Callable[..., Projected] = self._project
        self._after: Callable[..., Tensor] = self._finish
        if compiled:
            self._before = torch.compile(self._project, fullgraph=True, dynamic=False)
            self._after = torch.compile(self._finish, fullgraph=True, dynamic=False)

    def decode(
        self, tokens: Tensor, positions: Tensor, cache: DeviceCache, at: RowPages, reads: Reads
    ) -> Tensor:
        """Run one token of each row; return logits ``[B, n]`` in the weights' type.

        Args:
            tokens, positions: int64 ``[B]``; at: where the cache keeps them, these included.
        """
        shape, w = self.weights.shape, self.weights
        x = w.embedding[tokens]
        angles = self._angles(positions)
        listed, everything = self._every_page(cache, at)
        for index, layer in enumerate(w.layers):
            q, k, v = self._before(x, layer, *angles)
            pools, stats = (cache.k[index], cache.v[index]), cache.stats[index]
            self.twins.store(k.transpose(0, 1), v.transpose(0, 1), at.slots, *pools, stats)
            q = q.unflatten(1, (shape.kv_heads, shape.group))
            pages, kept = listed, everything
            if reads.coverage is not None:
                pages, kept = self._choose(q, cache, index, at, reads)
            decoded = self.twins.decode_pages(
                q, *pools, pages, kept, at.tails, self.scaling, masses=reads.masses
            )
            if reads.kept is not None:
                reads.kept.append(kept)
            x = self._after(x, decoded.out, layer)
        return F.linear(_norm(x, w.final_norm, shape.eps), w.head)

    def prefill(self, tokens: Tensor, cache: DeviceCache, row: int, *, last: int = 1) -> Tensor:
        """Compute a whole prompt of one row, dense; return logits of its ``last`` tokens.

        Args:
            tokens: int64 ``[L]``, written to the row's slots from its first on.
        """
        w, shape = self.weights, self.weights.shape
        n = len(tokens)
        if n > cache.capacity:
            raise ValueError(f"prompt: must fit {cache.capacity} tokens; got {n}")
        x = w.embedding[tokens]
        slots = cache.slots_of(row, 0, n)
        angles = self._angles(torch.arange(n, device=tokens.device))
        for index, layer in enumerate(w.layers):
            q, k, v = (part.transpose(0, 1) for part in self._project(x, layer, *angles))
            self.twins.store(k, v, slots, cache.k[index], cache.v[index], cache.stats[index])
            out = F.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=True, scale=self.scaling, enable_gqa=True
            )
            x = self._finish(x, out[0].transpose(0, 1), layer)
        return F.linear(_norm(x[n - last :], w.final_norm, shape.eps), w.head)

    def _choose(
        self, q: Tensor, cache: DeviceCache, index: int, at: RowPages, reads: Reads
    ) -> tuple[Tensor, Tensor]:
        mass = self.twins.estimate_mass(
            q,
            cache.stats[index],
            cache.table,
            at.n_pages,
            at.tails,
            self.scaling,
            page_tokens=cache.page_tokens,
        )
        return self.twins.select_pages(mass, cache.table, at.n_pages, reads.coverage, reads.pins)

    def _every_page(self, cache: DeviceCache, at: RowPages) -> tuple[Tensor, Tensor]:
        heads = self.weights.shape.kv_heads
        return (
            cache.table[:, None].expand(-1, heads, -1),
            at.n_pages[:, None].expand(-1, heads),
        )

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin, float32 ``[N, 1, D]``, each half of the head alike."""
        angle = positions[:, None].float() * self.weights.inverse_frequency
        angle = torch.cat([angle, angle], dim=-1)[:, None]
        return angle.cos(), angle.sin()

    def _project(self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor) -> Projected:
        """Return rotated queries ``[N, H, D]`` and keys, and values ``[N, Hkv, D]``."""
        shape = self.weights.shape
        projected = F.linear(_norm(x, layer.input_norm, shape.eps), layer.qkv)
        heads = projected.unflatten(-1, (-1, shape.head_dim))
        counts = [shape.heads, shape.kv_heads, shape.kv_heads]
        q, k, v = heads.split(counts, dim=1)
        if layer.head_norms is not None:
            q = _norm(q, layer.head_norms[0], shape.eps)
            k = _norm(k, layer.head_norms[1], shape.eps)
        return _rotate(q, cos, sin), _rotate(k, cos, sin), v

    def _finish(self, x: Tensor, attended: Tensor, layer: LayerWeights) -> Tensor:
        """Return the layer's output; attended is ``[N, H, D]``, heads grouped or not."""
        x = x + F.linear(attended.flatten(1), layer.out)
        hidden = _norm(x, layer.middle_norm, self.weights.shape.eps)
        gate, up = F.linear(hidden, layer.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, layer.down)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat([-high, low], dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)
