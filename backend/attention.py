"""Our attention for transformers: paged, flattened to ``[1, tokens]``, sparse on decode.

A step's sequences lie one behind the other on the token axis. ``StepInputs`` travels as a keyword
argument through the model's forward, so no module-level context is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from backend.cache import PagedCache, Touched
from kernels.page_select.naive import Pins, estimate_mass, select_pages
from kernels.paged_decode.naive import decode_dense, decode_pages, prefill

ATTENTION = "entropic"


@dataclass(frozen=True, slots=True)
class Span:
    """One row of a plan, ready for the device."""

    request_id: int
    first: int  # its first token on the flattened axis
    n: int  # tokens computed now
    length: int  # tokens attended to, these included
    pages: Tensor  # integer [ceil(length / page_tokens)]
    extent: int | None  # first page when the pages are consecutive
    counts: Tensor  # float [pages]: tokens in each page
    coverage: float
    samples: bool  # whether its last token's logits are sampled


class PageObserver(Protocol):
    """Whoever wants to see the attention of dense, sampled one-token rows (the recorder)."""

    def pages(self, layer: int, span: Span, weights: Tensor, estimate: Tensor, pins: Pins) -> None:
        """Receive exact weights ``[Hkv, G, L]`` and estimated page mass ``[Hkv, n]``."""
        ...


@dataclass(slots=True)
class StepInputs:
    """Everything one forward pass needs besides the token ids."""

    cache: PagedCache
    spans: list[Span]
    slots: Tensor  # integer [N]: where each token's K and V go
    touched: Touched
    pins: Pins
    observer: PageObserver | None = None
    page_units_read: int = 0
    page_units_dense: int = 0
    pages_scored: int = 0


def paged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    step: StepInputs,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend every sequence of a step; query ``[1, Hq, N, D]``, key, value ``[1, Hkv, N, D]``."""
    if softcap is not None or s_aux is not None:
        raise ValueError("model: attention with capped logits or learned sinks is not supported")
    del attention_mask  # causality is in the spans
    layer, kv_heads = module.layer_idx, key.shape[1]
    step.cache.write(layer, key[0], value[0], step.slots, step.touched)
    out = torch.empty_like(query[0])  # [Hq, N, D]
    for span in step.spans:
        q = query[0, :, span.first : span.first + span.n]
        if span.n == 1:
            grouped = q.reshape(kv_heads, -1, q.shape[-1])
            out[:, span.first] = _decode(step, layer, span, grouped, scaling).flatten(0, 1)
        else:
            k, v = step.cache.read(layer, span.pages, span.extent, span.length)
            out[:, span.first : span.first + span.n] = prefill(q, k, v, scaling)
    return out.transpose(0, 1)[None], None


def _decode(step: StepInputs, layer: int, span: Span, q: Tensor, scaling: float) -> Tensor:
    kv_heads, n = q.shape[0], len(span.pages)
    counted = kv_heads * n if span.samples else 0  # a one-token prompt chunk is not a decode row
    step.page_units_dense += counted
    if span.coverage >= 1.0:  # identity path: dense, bit for bit
        step.page_units_read += counted
        k, v = step.cache.read(layer, span.pages, span.extent, span.length)
        out, weights = decode_dense(q, k, v, scaling)
        if step.observer is not None and span.samples:
            estimate = _estimate(step.cache, layer, span, q, scaling)
            step.observer.pages(layer, span, weights, estimate, step.pins)
        return out
    mass = _estimate(step.cache, layer, span, q, scaling)
    step.pages_scored += counted
    pages, kept = select_pages(mass, span.coverage, step.pins)
    step.page_units_read += int(kept.sum())
    tail = span.length - (n - 1) * step.cache.page_tokens
    k_pages, v_pages = step.cache.layer_pages(layer)
    return decode_pages(q, k_pages, v_pages, span.pages[pages], kept, tail, scaling)


def _estimate(cache: PagedCache, layer: int, span: Span, q: Tensor, scaling: float) -> Tensor:
    mean, var = cache.page_moments(layer, span.pages, span.extent)
    return estimate_mass(q, mean, var, span.counts, scaling)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(ATTENTION, paged_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
