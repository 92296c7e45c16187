"""Sections 3.2 and 6.7: what recorded attention says of heads, memory, entropy, lost blocks."""

from __future__ import annotations

import numpy as np

from controllers.scores import lagged
from controllers.selection import CoverageSelection, Pins
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.evidence import beyond, by_group, correlation, share, text, within
from reports.claims.serve import ATTENTION, BASELINE, change_pct
from reports.statistics import Interval, interval
from traces.schema import COVERAGES, SCORERS

COVERAGE = 0.95
ORACLE = SCORERS.index("oracle")
REFRESH, STEPS, PAGES, HOT_PAGE = 64, 192, 12, 5
BETA = 0.5  # of the lagged score
EARLY = 0.25  # share of a sequence at its start, and at its end


def heads(context: Context) -> Judgement:
    """Does one choice of blocks suit every layer and head?"""
    at = COVERAGES.tolist().index(COVERAGE)
    mean = context.trace.columns["kept_mean"][:, ORACLE, at].astype(np.float64)
    most = context.trace.columns["kept_max"][:, ORACLE, at].astype(np.float64)
    need, union = float(mean.mean()), float(most.mean())
    because = (
        f"At coverage {COVERAGE} heads need {share(need)} of the pages on average and the "
        f"neediest head of a token {share(union)}: a block choice without a head index reads for "
        "all what one wants."
    )
    numbers = {"mean_share": need, "largest_share": union}
    if union - need < 0.05:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="Select per layer and KV head; entropy sets one coverage for all of them.",
    )


def premise(context: Context) -> Judgement:
    """Do tokens with less entropy need fewer pages, at equal attention mass?"""
    found = _per_prompt(context, "h_cal")
    because = (
        f"Within recorded texts, rank correlation of H at T_cal with the pages that hold "
        f"{share(COVERAGE)} of the mass: {text(found)} over prompts"
    )
    numbers = {} if found is None else {"correlation": found.mean}
    if found is None or found.half is None:
        return Judgement(ruling=Ruling.UNTESTABLE, because=because + "; too few prompts.")
    if beyond(found, +1):
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    end = "; a low entropy does not say that few pages matter."
    return Judgement(ruling=Ruling.REFUTED, because=because + end, numbers=numbers)


def collapse(context: Context) -> Judgement:
    """Does entropy collapse, and attention with it, as decoding goes on?"""
    falls = [_fall(context, name) for name in ("h_cal", "kept")]
    because = (
        f"First less last quarter of recorded replies: H {text(falls[0], ' nats')}, share of "
        f"pages that hold {share(COVERAGE)} of the mass {text(falls[1])}, over prompts"
    )
    numbers = {n: f.mean for n, f in zip(("h_fall", "kept_fall"), falls, strict=True) if f}
    if any(f is None or f.half is None for f in falls):
        return Judgement(ruling=Ruling.UNTESTABLE, because=because + "; too few prompts.")
    if all(beyond(f, +1) for f in falls):
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    which = "entropy" if not beyond(falls[0], +1) else "attention"
    return Judgement(
        ruling=Ruling.REFUTED, because=f"{because}: {which} does not fall.", numbers=numbers
    )


def footprint(context: Context) -> Judgement:
    """Does pruning relieve KV memory as well as bandwidth?"""
    at = COVERAGES.tolist().index(COVERAGE)
    evictable = float(context.trace.columns["evictable"][:, 0, at].mean())
    read = change_pct(context.table, ATTENTION, "kv_bytes_read_per_token")
    held = [
        context.table[row].first.steps["pages_held"].astype(np.float64)
        for row in (BASELINE, ATTENTION)
    ]
    peak = held[1].max() / held[0].max() - 1.0
    because = (
        f"Skipping pages moves KV bytes read by {text(read, ' %')} and the most pages held by "
        f"{100.0 * peak:+.2g} %: a skipped page stays. Only {share(evictable)} of the pages are "
        f"wanted by no layer and head at coverage {COVERAGE}, and only those could be freed."
    )
    numbers = {"peak_change": float(peak), "evictable_share": evictable}
    if peak <= -0.15:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    if not beyond(read, -1):
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="Skipping saves bandwidth and compute; memory takes eviction, which is final.",
    )


def dropped(context: Context, refresh: int = 0) -> Judgement:
    """Does a dropped block that becomes important come back? ``refresh``: dense every so often."""
    printed, repaired = steps_until_back(refresh), steps_until_back(REFRESH)
    because = (
        f"A page holding 70 % of the mass after it was dropped, scores measured on visited pages: "
        f"{_back(printed)} without a dense refresh, {_back(repaired)} with one every {REFRESH}"
    )
    if printed is not None:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".")
    if repaired is None:
        return Judgement(ruling=Ruling.REFUTED, because=because + ".")
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because + ".",
        numbers={"steps": float(repaired)},
        corrected="Read densely every R steps, or bound all pages' scores: back within R + 1.",
    )


def steps_until_back(refresh: int) -> int | None:
    """Return the steps until a page that became important is read again; None: never."""
    rule, pins = CoverageSelection(coverage=0.8), Pins()
    estimate = np.full(PAGES, 0.5 / (PAGES - 1))
    estimate[0], estimate[HOT_PAGE] = 0.5, 1e-6
    now = np.full(PAGES, 0.3 / (PAGES - 1))
    now[HOT_PAGE] = 0.7
    for step in range(1, STEPS + 1):
        dense = refresh > 0 and step % refresh == 0
        kept = np.ones(PAGES, bool) if dense else rule.keep(estimate, pins)
        if kept[HOT_PAGE]:
            return step
        estimate = lagged(estimate, now, kept, BETA)
    return None


def _back(steps: int | None) -> str:
    return f"not read in {STEPS} steps" if steps is None else f"read after {steps} steps"


def _columns(context: Context) -> dict[str, np.ndarray]:
    at = COVERAGES.tolist().index(COVERAGE)
    return {
        "h_cal": context.model.h_cal,
        "kept": context.trace.columns["kept_mean"][:, ORACLE, at].astype(np.float64),
    }


def _per_prompt(context: Context, name: str) -> Interval | None:
    """Return the mean over prompts of a column's rank correlation with pages, within texts."""
    found, columns = context.sequences, _columns(context)
    values = []
    for s, prompt in enumerate(found.prompt):
        rows = found.rows[s][found.live[s]]
        context_tokens = context.trace.columns["context"][rows].astype(np.float64)
        pages = within(columns["kept"][rows], np.zeros(len(rows)))
        if len(rows) < 8 or pages.std() == 0.0 or context_tokens.std() == 0.0:
            continue
        # What longer contexts alone do to the share is taken out: it falls along every text.
        slope = np.polyfit(np.log(context_tokens), pages, 1)
        rest = pages - np.polyval(slope, np.log(context_tokens))
        values.append((prompt, correlation(columns[name][rows], rest).mean))
    if not values:
        return None
    prompts, rs = (np.array(part) for part in zip(*values, strict=True))
    return interval(by_group(rs, prompts).tolist())


def _fall(context: Context, name: str) -> Interval | None:
    """Return the mean over prompts of a column's first less its last quarter."""
    found, column = context.sequences, _columns(context)[name]
    values = []
    for s, prompt in enumerate(found.prompt):
        rows = found.rows[s][found.live[s]]
        part = max(1, int(EARLY * len(rows)))
        values.append((prompt, column[rows[:part]].mean() - column[rows[-part:]].mean()))
    prompts, gaps = (np.array(part) for part in zip(*values, strict=True))
    return interval(by_group(gaps, prompts).tolist())


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="block-heads",
        section="3.2",
        says="One set of blocks B_t is active at a step.",
        judge=heads,
        command="entropic trace info",
        flaws=("F25",),
    ),
    Claim(
        key="block-premise",
        section="3.2",
        says="Output entropy tells how much context matters.",
        judge=premise,
        command="entropic claims --only block-premise",
        flaws=("F25",),
    ),
    Claim(
        key="collapse",
        section="6.7",
        says="As decoding progresses entropy collapses and attention sparsifies.",
        judge=collapse,
        command="entropic claims --only collapse",
    ),
    Claim(
        key="block-footprint",
        section="6.13",
        says="Pruning reduces attention FLOPs and KV-cache pressure.",
        judge=footprint,
        command="entropic ablate --seeds 5",
        flaws=("F26",),
    ),
    Claim(
        key="block-dropped",
        section="3.2",
        says="Pruning is dynamic: the active set follows what is relevant.",
        judge=dropped,
        command="pytest tests/laws/test_selection.py",
        flaws=("F27",),
    ),
)
