"""Turn a plan into the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backend.attention import PageObserver, StepInputs
from backend.cache import PagedCache
from backend.pagemass import PageMass
from backend.rows import Chunk, DecodeRows
from backend.sparse import SparseAttention
from controllers.serving.messages import Row
from kernels.page_select.naive import Pins


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row of the plan with its page table."""

    row: Row
    table: np.ndarray  # int64, holes included, cut to the pages in use
    held: np.ndarray  # the same without holes
    first: int  # its first token on the flattened axis

    @property
    def one_token(self) -> bool:
        return self.row.n_tokens == 1


def prepare(
    rows: Sequence[Row],
    pages: Mapping[int, list[int]],
    cache: PagedCache,
    pins: Pins,
    *,
    sparse: SparseAttention | None = None,
    observer: PageObserver | None = None,
) -> StepInputs:
    """Lay the rows of a step on one token axis and open the pages they begin.

    A table holds a negative number where a page was evicted; the token at position p lies in
    ``table[p // page_tokens]`` all the same, and attention reads the pages that are left.
    """
    sparse = sparse or SparseAttention()
    size = cache.page_tokens
    placed, first = [], 0
    for row in rows:
        used = -(-(row.start + row.n_tokens) // size)
        table = np.array(pages[row.request_id][:used], dtype=np.int64)
        held = table[table >= 0] if table.min() < 0 else table
        placed.append(_Placed(row, table, held, first))
        first += row.n_tokens
    cache.open_pages([page for p in placed for page in p.table[-(-p.row.start // size) :].tolist()])
    single, device = [p for p in placed if p.one_token], cache.device
    return StepInputs(
        cache=cache,
        rows=tuple(rows),
        chunks=[_chunk(p, size, device) for p in placed if not p.one_token],
        decode=_decode_rows(single, size, sparse).to(device) if single else None,
        slots=torch.from_numpy(np.concatenate([_slots(p, size) for p in placed])).to(device),
        sparse=sparse,
        pins=pins,
        observer=observer,
        mass=_mass(cache, sparse),
    )


def _mass(cache: PagedCache, sparse: SparseAttention) -> PageMass | None:
    if not sparse.measures:
        return None
    return PageMass(cache.n_pages, informed=sparse.measure_information, device=cache.device)


def _slots(placed: _Placed, size: int) -> np.ndarray:
    row = placed.row
    position = np.arange(row.start, row.start + row.n_tokens)
    return placed.table[position // size] * size + position % size


def _tail(row: Row, size: int) -> int:
    return (row.start + row.n_tokens - 1) % size + 1


def _chunk(placed: _Placed, size: int, device: torch.device) -> Chunk:
    row, held = placed.row, placed.held
    consecutive = bool((np.diff(held) == 1).all())
    return Chunk(
        first=placed.first,
        n=row.n_tokens,
        length=(len(held) - 1) * size + _tail(row, size),
        pages=torch.from_numpy(held).to(device),
        extent=int(held[0]) if consecutive else None,
    )


def _decode_rows(placed: list[_Placed], size: int, sparse: SparseAttention) -> DecodeRows:
    n_pages = np.array([len(p.held) for p in placed], dtype=np.int32)
    coverage = np.array([p.row.coverage for p in placed], dtype=np.float32)
    counted = np.array([p.row.samples for p in placed])  # a one-token prompt chunk is not counted
    short = (coverage < 1.0) & (n_pages < sparse.min_pages)
    table = np.empty((len(placed), int(n_pages.max())), dtype=np.int32)
    for lane, p in enumerate(placed):
        table[lane, : len(p.held)] = p.held
        table[lane, len(p.held) :] = p.held[-1]
    at = np.array([p.first for p in placed])
    return DecodeRows(
        request_ids=tuple(p.row.request_id for p in placed),
        at=torch.from_numpy(at),
        table=torch.from_numpy(table),
        n_pages=torch.from_numpy(n_pages),
        tails=torch.tensor([_tail(p.row, size) for p in placed], dtype=torch.int32),
        coverage=torch.from_numpy(np.where(short, np.float32(1.0), coverage)),
        counted=torch.from_numpy(counted),
        units=int(n_pages[counted].sum()),
        ran_dense=int((short & counted).sum()),
    ).with_pruned()


def forward(model: object, tokens: list[int], rows: Sequence[Row], step: StepInputs) -> Tensor:
    """Run the model over a prepared step; return logits of each sampled row, float32 ``[S, n]``."""
    positions = np.concatenate([np.arange(r.start, r.start + r.n_tokens) for r in rows])
    ends = np.cumsum([row.n_tokens for row in rows]) - 1
    last = [int(end) for row, end in zip(rows, ends, strict=True) if row.samples]
    device = step.cache.device
    # A step without samples still fills the cache.
    keep = torch.tensor(last or [0], dtype=torch.long, device=device)
    out = model(  # type: ignore[operator]  # a transformers model; typed loosely there
        input_ids=torch.tensor(tokens, dtype=torch.long, device=device)[None],
        position_ids=torch.from_numpy(positions).to(device)[None],
        use_cache=False,
        logits_to_keep=keep,
        step=step,
    )
    step.count()
    return out.logits[0].float()[: len(last)]
