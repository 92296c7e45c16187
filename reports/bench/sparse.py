"""What a page not read saves: decode time against pages kept, and the context where it pays."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from backend.models import LoadedModel
from backend.setup import PAGE_TOKENS, page_unit_bytes
from backend.sparse import SparseAttention
from reports.bench.clock import COPY, SETTLE_S, Case, Copy, interleave
from reports.bench.decode import DENSE, Note, variant_of
from reports.bench.fit import crossover, fit_line
from reports.bench.memory import GB
from reports.bench.ours import OurSteps, Step
from reports.bench.rows import Measure, measure, shape_of
from reports.bench.text import text_name, token_rows

NAME = "sparse"
SHORT = "no_context"  # a dense step over one page: everything but attention, nearly
FEWEST_POINTS = 3  # sparse settings a line is drawn through
NARROWEST_PAGES = 8.0  # between the fewest and the most pages of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to time: coverages at every context, in one batch."""

    batch: int
    contexts: tuple[int, ...]
    coverages: tuple[float, ...]  # each < 1; dense is always timed
    repeats: int


def run(
    loaded: LoadedModel,
    sweep: Sweep,
    copy: Copy,
    note: Note,
    rows: Sequence[list[int]] | None = None,
) -> Iterator[Measure]:
    """Time every context and coverage; end with the crossover lengths.

    Short rows are pruned too, which the engine's default refuses: the point is to see them lose.
    """
    ids = token_rows(loaded, sweep.batch, max(sweep.contexts) + 1) if rows is None else rows
    ours = OurSteps(loaded, ids, sparse=SparseAttention(min_pages=1))
    text = text_name() if rows is None else "given"
    units = sweep.batch * loaded.layers * loaded.kv_heads
    page_bytes = units * page_unit_bytes(loaded, PAGE_TOKENS)
    ratios: dict[str, list[tuple[float, ...]]] = {}
    contexts = sorted(set(sweep.contexts))
    for context in contexts:
        note(f"sparse: filling {sweep.batch} sequences to {context} tokens")
        ours.fill(context)
        note(f"sparse: timing context {context}")
        point = _Point(ours, sweep)
        cases = point.cases() | {COPY: copy}
        seconds = interleave(cases, sweep.repeats, settle_s=SETTLE_S)
        shape = shape_of(batch=sweep.batch, context=context, text=text)
        yield from point.measures(shape, seconds, copy.moved_bytes)
        yield from _lines(shape, seconds, point.steps, page_bytes)
        for variant in map(variant_of, sweep.coverages):
            pairs = zip(seconds[variant], seconds[DENSE], strict=True)
            ratios.setdefault(variant, []).append(tuple(a / b for a, b in pairs))
    for variant, found in ratios.items():
        yield from _crossing(variant, sweep.batch, contexts, found)


class _Point:
    """One context: its cases, and what the last turn of each read."""

    def __init__(self, ours: OurSteps, sweep: Sweep) -> None:
        self._ours, self._sweep = ours, sweep
        self.steps: dict[str, Step] = {}

    def cases(self) -> dict[str, Case]:
        found = {SHORT: self._case(SHORT, 1.0, PAGE_TOKENS)}
        for coverage in (1.0, *self._sweep.coverages):
            found[variant_of(coverage)] = self._case(variant_of(coverage), coverage, None)
        return found

    def _case(self, variant: str, coverage: float, context: int | None) -> Case:
        def time_it() -> float:
            step = self._ours.decode(self._sweep.batch, coverage, context)
            self.steps[variant] = step
            return step.seconds

        return time_it

    def measures(
        self, shape: str, seconds: dict[str, tuple[float, ...]], copy_bytes: int
    ) -> Iterator[Measure]:
        for variant, step in self.steps.items():
            made = partial(measure, NAME, variant, shape)
            yield made("step_s", "s", seconds[variant])
            yield made("pages_kept", "pages", [step.pages_kept])
            yield made("pages_kept_share", "1", [step.kept_share])
            yield made("kv_bytes", "B", [step.kv_bytes])
            pairs = zip(seconds[variant], seconds[DENSE], strict=True)
            yield made("time_over_dense", "1", [a / b for a, b in pairs])
            yield made(
                "copy_gb_per_s", "GB/s", [copy_bytes / GB / value for value in seconds[COPY]]
            )


def _lines(
    shape: str,
    seconds: dict[str, tuple[float, ...]],
    steps: dict[str, Step],
    page_bytes: int,
) -> Iterator[Measure]:
    """Fit step time against pages kept over the sparse settings, repeat by repeat."""
    variants = [name for name in steps if name not in (SHORT, DENSE)]
    kept = [steps[name].pages_kept for name in variants]
    if len(set(kept)) < FEWEST_POINTS or max(kept) - min(kept) < NARROWEST_PAGES:
        return  # a short context keeps its pinned pages whatever the coverage
    repeats = range(len(seconds[DENSE]))
    lines = [fit_line(kept, [seconds[name][r] for name in variants]) for r in repeats]
    medians = [statistics.median(seconds[name]) for name in variants]
    dense, short = seconds[DENSE], seconds[SHORT]
    made = partial(measure, NAME, "fit", shape)
    yield made("slope_s_per_page", "s", [line.slope for line in lines])
    yield made("intercept_s", "s", [line.intercept for line in lines])
    yield made("r2_of_medians", "1", [fit_line(kept, medians).r2])
    yield made("no_context_s", "s", short)
    yield made("choosing_s", "s", [ln.intercept - s for ln, s in zip(lines, short, strict=True)])
    shares = zip(dense, short, strict=True)
    yield made("attention_share", "1", [1.0 - s / d for d, s in shares])
    if all(line.slope > 0.0 for line in lines):
        yield made("page_gb_per_s", "GB/s", [page_bytes / GB / line.slope for line in lines])


def _crossing(
    variant: str, batch: int, contexts: Sequence[int], ratios: Sequence[tuple[float, ...]]
) -> Iterator[Measure]:
    """Yield the context from which a coverage beats dense, judged by the median ratios.

    The range is over repeats where each of them has a crossing of its own.
    """
    middle = crossover(contexts, [statistics.median(ratio) for ratio in ratios])
    if middle is None:
        return
    each = [crossover(contexts, column) for column in zip(*ratios, strict=True)]
    found = [length for length in each if length is not None]
    shape = shape_of(batch=batch, context=max(contexts))
    values = found if len(found) == len(each) else [middle]
    yield measure(NAME, variant, shape, "crossover_tokens", "tokens", values)
