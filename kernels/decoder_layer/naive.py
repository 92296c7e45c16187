"""A decoder layer for one-token rows: the definition."""

from __future__ import annotations

from torch import Tensor

from kernels.decoder_layer.shapes import LayerPages, Rows, Shape, Weights
from kernels.gated_silu.naive import gated_silu
from kernels.kv_store.naive import store
from kernels.page_select.naive import estimate_mass, select_pages
from kernels.paged_decode.naive import decode_pages
from kernels.rms_norm.naive import rms_norm
from kernels.rotary.naive import rotate
from kernels.skinny_linear.naive import linear


def layer(x: Tensor, rows: Rows, shape: Shape, weights: Weights, at: LayerPages) -> Tensor:
    """Return the layer's output for M rows ``x [M, width]``; keys and values are stored.

    h = x + O attention(rotated(I norm(x))), y = h + D (silu(G norm(h)) * U norm(h)). With a choice
    attention reads the pages that ``kernels.page_select`` selects once the new keys are stored.
    """
    heads = before(x, rows.cos, rows.sin, shape, weights)
    queries, keys, values = heads.split([shape.queries, shape.kv_heads, shape.kv_heads], dim=1)
    k, v = keys.transpose(0, 1), values.transpose(0, 1)
    store(k, v, rows.slots, at.k, at.v, at.stats)
    grouped = queries.unflatten(1, (shape.kv_heads, shape.group))
    pages, kept = listed(grouped, rows, at)
    out = decode_pages(grouped, at.k, at.v, pages, kept, rows.tails, rows.scaling).out
    return after(x, out.reshape(len(x), -1), shape, weights)


def listed(q: Tensor, rows: Rows, at: LayerPages) -> tuple[Tensor, Tensor]:
    """Return the pages that queries ``q [M, Hkv, G, D]`` read, ``[M, Hkv, m]``, and how many."""
    if rows.choice is None:
        heads = q.shape[1]
        every = rows.table[:, None].expand(-1, heads, -1)
        return every, rows.n_pages[:, None].expand(-1, heads)
    assert at.stats is not None
    mass = estimate_mass(
        q,
        at.stats,
        rows.table,
        rows.n_pages,
        rows.tails,
        rows.scaling,
        page_tokens=at.k.shape[2],
    )
    return select_pages(mass, rows.table, rows.n_pages, rows.choice.coverage, rows.choice.pins)


def before(x: Tensor, cos: Tensor, sin: Tensor, shape: Shape, weights: Weights) -> Tensor:
    """Return queries, keys and values ``[M, heads, D]``, rotated as far as they are."""
    normed = rms_norm(x, weights.first, weights.first_eps)
    projected = linear(normed, weights.inputs, shape.heads * shape.dim, weights.inputs_bias)
    heads = projected.view(len(x), shape.heads, shape.dim)
    rotate(heads, cos, sin, shape.queries + shape.kv_heads)
    return heads


def after(x: Tensor, attended: Tensor, shape: Shape, weights: Weights) -> Tensor:
    """Return the layer's output; x its input, ``attended [M, queries * D]`` of attention."""
    h = x + linear(attended, weights.output, shape.width, weights.output_bias)
    normed = rms_norm(h, weights.second, weights.second_eps)
    gate, up = (linear(normed, w, shape.inner, None) for w in (weights.gate, weights.up))
    return h + linear(gated_silu(gate, up), weights.down, shape.width, None)
