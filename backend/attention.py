"""Our attention for transformers: paged, flattened to ``[1, tokens]``, sparse on decode.

A step's sequences lie one behind the other on the token axis. ``StepInputs`` travels as a keyword
argument through the model's forward, so no module-level context is needed. All one-token rows of a
step, dense and pruned alike, are one kernel call per layer; dense attention is the same call with
every page listed, which is why coverage 1 equals it bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from backend.cache import PagedCache
from backend.pagechoice import choose, estimate
from backend.pagemass import PageMass
from backend.rows import Chunk, DecodeRows
from backend.sparse import SparseAttention
from controllers.serving.messages import Row
from kernels.decoder_layer.laid import Laid
from kernels.decoder_layer.native import Kernel
from kernels.dispatch import Decoded, decode_pages
from kernels.page_select.naive import Pins
from kernels.paged_decode.prefill import prefill

ATTENTION = "entropic"


class PageObserver(Protocol):
    """Whoever wants to see the attention of dense, sampled one-token rows (the recorder)."""

    def pages(self, request_id: int, weights: Tensor, estimate: Tensor, step: StepInputs) -> None:
        """Receive exact weights ``[Hkv, G, L]`` and estimated page mass ``[Hkv, n]``."""
        ...


class ChoiceWitness(Protocol):
    """Whoever wants to see which pages each one-token row reads, layer by layer (evaluation)."""

    def layer(
        self, layer: int, q: Tensor, pages: Tensor, kept: Tensor, scaling: float, step: StepInputs
    ) -> None:
        """Receive queries ``[B, Hkv, G, D]``, listed pages ``[B, Hkv, m]``, kept ``[B, Hkv]``."""
        ...


@dataclass(slots=True)
class StepInputs:
    """Everything one forward pass needs besides the token ids, and what it counted."""

    cache: PagedCache
    rows: tuple[Row, ...]  # of the plan, in its order
    chunks: list[Chunk]
    decode: DecodeRows | None
    slots: Tensor  # integer [N]: where each token's K and V go
    sparse: SparseAttention
    pins: Pins
    observer: PageObserver | None = None
    witness: ChoiceWitness | None = None
    mass: PageMass | None = None  # each page's attention mass, if it was asked for
    page_units_read: int = 0  # pages read, summed over sampled one-token rows, layers, KV heads
    page_units_dense: int = 0  # what dense attention would have read
    pages_scored: int = 0  # pages whose score was taken, summed likewise
    laid: dict[tuple[Kernel, bool], Laid] = field(default_factory=dict)  # that choose, or not
    kept: list[Tensor] = field(default_factory=list)  # pages of pruned rows, [B, Hkv] per layer

    @property
    def sparse_rows_run_dense(self) -> int:
        """Rows asked to prune that are too short to gain by it, and so ran dense."""
        return 0 if self.decode is None else self.decode.ran_dense

    def count(self) -> None:
        """Add what pruned rows read to ``page_units_read``; once, after the pass.

        Not layer by layer: each time the host would wait for the device.
        """
        if self.kept:
            assert self.decode is not None
            assert self.decode.pruned is not None
            self.page_units_read += int(torch.stack(self.kept)[:, self.decode.pruned.counted].sum())
            self.kept.clear()


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
    del attention_mask  # causality is in the rows
    layer, kv_heads = module.layer_idx, key.shape[1]
    step.cache.write(layer, key[0], value[0], step.slots)
    tokens = query[0].transpose(0, 1)  # [N, Hq, D]
    if not step.chunks:  # decode rows are the whole axis, in order
        grouped = tokens.unflatten(1, (kv_heads, -1))
        return _decode(step, layer, grouped, scaling).flatten(1, 2)[None], None
    out = torch.empty(tokens.shape, dtype=tokens.dtype, device=tokens.device)
    if step.decode is not None:
        grouped = tokens[step.decode.at].unflatten(1, (kv_heads, -1))
        out[step.decode.at] = _decode(step, layer, grouped, scaling).flatten(1, 2)
    for chunk in step.chunks:
        end = chunk.first + chunk.n
        k, v = step.cache.read(layer, chunk.pages, chunk.extent, chunk.length)
        done = prefill(query[0, :, chunk.first : end], k, v, scaling)
        out[chunk.first : end] = done.transpose(0, 1)
    return out[None], None


def _decode(step: StepInputs, layer: int, q: Tensor, scaling: float) -> Tensor:
    """Attend the one-token rows, ``[B, Hkv, G, D]``."""
    rows, heads = step.decode, q.shape[1]
    assert rows is not None
    pages = rows.table[:, None].expand(-1, heads, -1)
    kept = rows.n_pages[:, None].expand(-1, heads)
    step.page_units_dense += heads * rows.units
    step.page_units_read += heads * rows.units
    pruned = rows.pruned
    if pruned is not None and layer >= step.sparse.dense_layers:
        step.pages_scored += heads * pruned.units
        step.page_units_read -= heads * pruned.units
        chosen, count = choose(step, layer, pruned, q if rows.all_pruned else q[pruned.at], scaling)
        step.kept.append(count)
        pages, kept = (chosen, count) if rows.all_pruned else rows.merge(pages, kept, chosen, count)
    k_pages, v_pages = step.cache.layer_pages(layer)
    wanted = step.mass is not None or step.cache.lag is not None
    informed = step.mass is not None and step.sparse.measure_information
    decoded = decode_pages(
        q,
        k_pages,
        v_pages,
        pages,
        kept,
        rows.tails,
        scaling,
        masses=wanted,
        surprisal=step.cache.surprisal if informed else None,
    )
    if wanted:
        _note_masses(step, layer, decoded, pages, kept)
    if step.observer is not None:
        _observe(step, step.observer, layer, q, scaling)
    if step.witness is not None:
        step.witness.layer(layer, q, pages, kept, scaling, step)
    return decoded.out


def _note_masses(
    step: StepInputs, layer: int, decoded: Decoded, pages: Tensor, kept: Tensor
) -> None:
    assert decoded.page_mass is not None
    if step.mass is not None:
        step.mass.add(pages, decoded.page_mass, decoded.page_surprisal)
    if step.cache.lag is not None:
        step.cache.note_mass(layer, pages, kept, decoded.page_mass, step.sparse.lag_rate)


def _observe(
    step: StepInputs, observer: PageObserver, layer: int, q: Tensor, scaling: float
) -> None:
    """Show the observer exact weights; a pass of its own, so that watching changes no bit."""
    rows = step.decode
    assert rows is not None
    seen = [
        lane for lane in range(len(q)) if bool(rows.counted[lane]) and rows.coverage[lane] >= 1.0
    ]
    if not seen:
        return
    mass = estimate(step, layer, rows, q, scaling)
    for lane in seen:
        n = int(rows.n_pages[lane])
        length = (n - 1) * step.cache.page_tokens + int(rows.tails[lane])
        k, _ = step.cache.read(layer, rows.table[lane, :n], None, length)
        weights = (torch.matmul(q[lane], k.mT) * scaling).softmax(-1)
        observer.pages(rows.request_ids[lane], weights, mass[lane, :, :n], step)


# No mask function goes with it: for an attention without one transformers prepares no mask.
AttentionInterface.register(ATTENTION, paged_attention)
