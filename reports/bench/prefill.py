"""Prefill of one prompt: ours whole and in chunks, stock transformers whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from backend.models import LoadedModel
from reports.bench.clock import COPY, Case, Copy, interleave
from reports.bench.decode import TRANSFORMERS, Note
from reports.bench.memory import GB
from reports.bench.ours import OurSteps
from reports.bench.peers import StockSteps
from reports.bench.rows import Measure, measure, shape_of
from reports.bench.text import token_rows

NAME = "prefill"
PEERS = (TRANSFORMERS,)
WHOLE = "whole"


def run(
    loaded: LoadedModel,
    network: Any,
    lengths: Sequence[int],
    chunks: Sequence[int],
    repeats: int,
    copy: Copy,
    note: Note,
    rows: Sequence[list[int]] | None = None,
) -> Iterator[Measure]:
    """Time prompts of each length; ``network`` is the stock model, or None to leave it out."""
    ids = token_rows(loaded, 1, max(lengths)) if rows is None else rows
    ours = OurSteps(loaded, ids)
    theirs = None if network is None else StockSteps(network, ids)
    for length in sorted(set(lengths)):
        note(f"prefill: timing {length} tokens")
        last: dict[str, tuple[int, ...]] = {}
        cases: dict[str, Case] = {WHOLE: _kept(last, WHOLE, _ours(ours, length, length))}
        for chunk in (c for c in chunks if c < length):
            cases[f"chunk={chunk}"] = _kept(last, f"chunk={chunk}", _ours(ours, length, chunk))
        if theirs is not None:
            cases[TRANSFORMERS] = _kept(last, TRANSFORMERS, partial(theirs.prefill, 0, length))
        seconds = interleave(cases | {COPY: copy}, repeats)
        yield from _measures(shape_of(tokens=length), length, seconds, last, copy.moved_bytes)


Timed = Callable[[], tuple[float, tuple[int, ...]]]


def _ours(ours: OurSteps, length: int, chunk: int) -> Timed:
    return lambda: ours.prefill(0, 0, length, chunk)


def _kept(last: dict[str, tuple[int, ...]], name: str, work: Timed) -> Case:
    def time_it() -> float:
        seconds, last[name] = work()
        return seconds

    return time_it


def _measures(
    shape: str,
    length: int,
    seconds: dict[str, tuple[float, ...]],
    last: dict[str, tuple[int, ...]],
    copy_bytes: int,
) -> Iterator[Measure]:
    for variant, values in seconds.items():
        if variant == COPY:
            continue
        made = partial(measure, NAME, variant, shape)
        yield made("prefill_s", "s", values)
        yield made("tokens_per_s", "1/s", [length / value for value in values])
        yield made("copy_gb_per_s", "GB/s", [copy_bytes / GB / value for value in seconds[COPY]])
        if variant != TRANSFORMERS and TRANSFORMERS in seconds:
            peers = zip(seconds[TRANSFORMERS], values, strict=True)
            yield made("speedup_over_transformers", "1", [a / b for a, b in peers])
            yield made("same_next_token_share", "1", [float(last[variant] == last[TRANSFORMERS])])
