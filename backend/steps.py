"""Turn a plan into the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from backend.attention import PageObserver, Span, StepInputs
from backend.cache import PagedCache, Touched
from controllers.serving.messages import Row
from kernels.page_select.naive import Pins


def prepare(
    rows: Sequence[Row],
    pages: Mapping[int, list[int]],
    cache: PagedCache,
    pins: Pins,
    *,
    observer: PageObserver | None = None,
) -> StepInputs:
    """Lay the rows of a step on one token axis and open the pages they begin."""
    spans, slots, opened, first = [], [], [], 0
    touched, counts = [], []
    size = cache.page_tokens
    for row in rows:
        table = pages[row.request_id]
        span = _span(row, table, first, size)
        spans.append(span)
        position = torch.arange(row.start, span.length)
        slots.append(span.pages[position // size] * size + position % size)
        # Pages whose first token is in this row start empty.
        opened.extend(table[-(-row.start // size) : len(span.pages)])
        touched.append(span.pages[row.start // size :])
        counts.append(span.counts[row.start // size :])
        first += row.n_tokens
    cache.open_pages(torch.tensor(opened, dtype=torch.long))
    return StepInputs(
        cache=cache,
        spans=spans,
        slots=torch.cat(slots),
        touched=Touched(torch.cat(touched), torch.cat(counts)),
        pins=pins,
        observer=observer,
    )


def _span(row: Row, table: list[int], first: int, size: int) -> Span:
    length = row.start + row.n_tokens
    used = table[: -(-length // size)]
    consecutive = used[-1] - used[0] == len(used) - 1 and used == list(range(used[0], used[-1] + 1))
    counts = torch.full((len(used),), float(size))
    counts[-1] = length - (len(used) - 1) * size
    return Span(
        request_id=row.request_id,
        first=first,
        n=row.n_tokens,
        length=length,
        pages=torch.tensor(used, dtype=torch.long),
        extent=used[0] if consecutive else None,
        counts=counts,
        coverage=row.coverage,
        samples=row.samples,
    )


def forward(model: object, tokens: list[int], rows: Sequence[Row], step: StepInputs) -> Tensor:
    """Run the model over a prepared step; return logits of each sampled row, float32 ``[S, n]``."""
    positions = torch.cat([torch.arange(row.start, row.start + row.n_tokens) for row in rows])
    last = [
        span.first + span.n - 1 for row, span in zip(rows, step.spans, strict=True) if row.samples
    ]
    # A step without samples still fills the cache.
    keep = torch.tensor(last or [0], dtype=torch.long)
    out = model(  # type: ignore[operator]  # a transformers model; typed loosely there
        input_ids=torch.tensor(tokens, dtype=torch.long)[None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=keep,
        step=step,
    )
    return out.logits[0].float()[: len(last)]
