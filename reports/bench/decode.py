"""Decode steps over a grid of batch and context: ours, stock transformers, attention alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from backend.models import LoadedModel
from reports.bench.clock import COPY, SETTLE_S, Case, Copy, interleave
from reports.bench.memory import GB, Sizes
from reports.bench.ours import OurSteps, Step
from reports.bench.peers import PackedSdpa, StockSteps
from reports.bench.rows import Measure, measure, shape_of
from reports.bench.text import text_name, token_rows

NAME = "decode"
DENSE, TRANSFORMERS, SDPA = "dense", "transformers", "sdpa"
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What to time."""

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    coverages: tuple[float, ...]  # 1 is dense
    peers: tuple[str, ...]
    repeats: int
    layout: str = "extents"

    @property
    def largest(self) -> tuple[int, int]:
        """The batch and the context that memory must hold."""
        return max(self.batches), max(self.contexts)


def run(
    loaded: LoadedModel,
    network: Any,
    grid: Grid,
    copy: Copy,
    note: Note,
    rows: Sequence[list[int]] | None = None,
) -> Iterator[Measure]:
    """Time every point; ``network`` is the stock model, used where ``transformers`` is a peer.

    ``rows`` are token ids to use instead of text.
    """
    batch, context = grid.largest
    ids = token_rows(loaded, batch, context + 1) if rows is None else rows
    ours = OurSteps(loaded, ids, layout=grid.layout)
    theirs = StockSteps(network, ids) if TRANSFORMERS in grid.peers else None
    sizes, text = Sizes.of(loaded), text_name() if rows is None else "given"
    for context in sorted(set(grid.contexts)):
        note(f"decode: filling {batch} sequences to {context} tokens")
        ours.fill(context)
        if theirs is not None:
            theirs.fill(context)
        for size in sorted(set(grid.batches)):
            note(f"decode: timing batch {size}, context {context}")
            packed = PackedSdpa(loaded, size, context) if SDPA in grid.peers else None
            point = _Point(ours, theirs, packed, size)
            cases = point.cases(grid.coverages) | {COPY: copy}
            seconds = interleave(cases, grid.repeats, settle_s=SETTLE_S)
            shape = shape_of(batch=size, context=context, layout=grid.layout, text=text)
            yield from point.measures(shape, seconds, sizes, copy.moved_bytes)


def variant_of(coverage: float) -> str:
    """Return the name of our variant at a coverage."""
    return DENSE if coverage >= 1.0 else f"coverage={coverage:g}"


class _Point:
    """One batch and context: its cases, and what the last turn of each read and said."""

    def __init__(
        self, ours: OurSteps, theirs: StockSteps | None, packed: PackedSdpa | None, batch: int
    ) -> None:
        self._ours, self._theirs, self._packed, self._batch = ours, theirs, packed, batch
        self._steps: dict[str, Step] = {}
        self._peer_tokens: tuple[int, ...] = ()

    def cases(self, coverages: Sequence[float]) -> dict[str, Case]:
        found: dict[str, Case] = {variant_of(c): self._case(c) for c in coverages}
        if self._theirs is not None:
            found[TRANSFORMERS] = self._peer
        if self._packed is not None:
            found[SDPA] = self._packed
        return found

    def _case(self, coverage: float) -> Case:
        def time_it() -> float:
            step = self._ours.decode(self._batch, coverage)
            self._steps[variant_of(coverage)] = step
            return step.seconds

        return time_it

    def _peer(self) -> float:
        assert self._theirs is not None
        seconds, self._peer_tokens = self._theirs.decode(self._batch)
        return seconds

    def measures(
        self, shape: str, seconds: dict[str, tuple[float, ...]], sizes: Sizes, copy_bytes: int
    ) -> Iterator[Measure]:
        copied = tuple(copy_bytes / GB / value for value in seconds[COPY])
        context = self._ours.filled
        dense_kv = float(self._batch * (context + 1) * sizes.kv_per_token)
        for variant, values in seconds.items():
            if variant == COPY:
                continue
            step = self._steps.get(variant)
            weights = 0 if variant == SDPA else sizes.weights
            kv_bytes = dense_kv if step is None else step.kv_bytes
            made = partial(measure, NAME, variant, shape)
            yield made("step_s", "s", values)
            if variant != SDPA:
                yield made("tokens_per_s", "1/s", [self._batch / value for value in values])
            yield made("kv_bytes", "B", [kv_bytes])
            yield made("weights_bytes", "B", [float(weights)])
            achieved = [(kv_bytes + weights) / GB / value for value in values]
            yield made("gb_per_s", "GB/s", achieved)
            yield made("copy_gb_per_s", "GB/s", copied)
            yield made("share_of_copy", "1", [a / c for a, c in zip(achieved, copied, strict=True)])
            if step is not None:
                yield made("pages_kept_share", "1", [step.kept_share])
            if step is not None and self._theirs is not None:
                peers = zip(seconds[TRANSFORMERS], values, strict=True)
                yield made("speedup_over_transformers", "1", [a / b for a, b in peers])
                same = [a == b for a, b in zip(step.tokens, self._peer_tokens, strict=True)]
                yield made("same_next_token_share", "1", [sum(same) / len(same)])
