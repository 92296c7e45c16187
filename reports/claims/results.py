"""Section 6: the printed results, checked against themselves and against our bench.

Our bench is another model, machine and load than the paper's, which it does not name. A printed
number that our measurement does not meet is *refuted* in this sense: it does not carry over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.decode_row import row_seconds
from reports.claims.evidence import beyond, share, text
from reports.claims.printed import (
    ATTENTION_FLOPS_SAVED,
    ATTENTION_RANGES,
    EXPECTED_OF,
    FULL_RANGES,
    METRICS,
    PARTS,
    ROUNDING,
    SAMPLING_RANGES,
    SCHEDULING_RANGES,
    SETUP,
    TABLE_1,
    Range,
)
from reports.claims.serve import (
    ATTENTION,
    BASELINE,
    FULL,
    SAMPLING,
    SCHEDULING,
    Served,
    change_pct,
)
from reports.statistics import Interval, interval


def setup(context: Context, named: Mapping[str, str] = SETUP) -> Judgement:
    """Can section 6 be repeated?"""
    missing = [what for what, value in named.items() if not value]
    numbers = {"missing": float(len(missing))}
    if not missing:
        return Judgement(ruling=Ruling.HOLDS, because="The set-up is named.", numbers=numbers)
    pairs = ", ".join(f"{late} of {early}" for late, early in EXPECTED_OF.items())
    because = (
        f"{len(missing)} of {len(named)} things needed to repeat it are not named: "
        f"{', '.join(missing)}. Sections announce as expected what others report: {pairs}."
    )
    return Judgement(ruling=Ruling.UNTESTABLE, because=because, numbers=numbers)


def printed_interaction(
    context: Context, table: Mapping[str, tuple[float, ...]] = TABLE_1
) -> Judgement:
    """Is the full row of Table 1 better than the product of its parts?"""
    parts, proven, numbers = [], [], {}
    for metric in METRICS:
        column = np.array([table[row][metric.column] for row in PARTS])
        full = table[FULL][metric.column]
        found = _gain(metric.better, full, column)
        # Rounding can only help or hurt by so much: the gain at its two extremes.
        slack = ROUNDING * metric.better
        least = _gain(metric.better, full - slack, column + slack)
        proven.append(least > 0.0)
        numbers[f"{metric.name} log-interaction"] = found
        parts.append(f"{metric.name} {full:.2f} against {column.prod():.3f} ({100 * found:+.2g} %)")
    because = (
        "Gains of independent parts multiply. Full system against the product of the three parts: "
        f"{'; '.join(parts)}; plus is super-additive."
    )
    if all(proven):
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    sure = ", ".join(m.name for m, ok in zip(METRICS, proven, strict=True) if ok) or "none"
    because += f" Beyond the rounding of two decimals: {sure}. No spread is printed."
    return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)


def our_interaction(context: Context) -> Judgement:
    """Is our full system better than the product of its parts?"""
    found = {m.name: interaction(context.table, m.ours, m.better) for m in METRICS}
    numbers = {f"{name} log-interaction": one.mean for name, one in found.items() if one}
    listed = "; ".join(f"{name} {text(one)}" for name, one in found.items())
    because = (
        f"Our ablation, {len(context.seeds)} seeds, ln(full) less the sum of ln(parts), plus is "
        f"super-additive: {listed}"
    )
    if any(one is None or one.half is None for one in found.values()):
        return Judgement(
            ruling=Ruling.UNTESTABLE, because=because + "; one seed has no spread.", numbers=numbers
        )
    if all(beyond(one, +1) for one in found.values()):
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    clear = ", ".join(name for name, one in found.items() if beyond(one, +1)) or "none"
    return Judgement(
        ruling=Ruling.REFUTED, because=because + f". Clearly above 0: {clear}.", numbers=numbers
    )


def amdahl(context: Context) -> Judgement:
    """Can 20-30 % less attention work give 15 % less latency?"""
    saved = 1.0 - TABLE_1[ATTENTION][0]
    needed = [saved / part for part in ATTENTION_FLOPS_SAVED[::-1]]
    row = row_seconds(context)
    mean, longest = (float(k / (k + row.rest)) for k in (row.read.mean(), row.read.max()))
    choosing = float(row.choose.mean() / row.dense.mean())
    numbers = {"needed_least": needed[0], "mean_share": mean, "longest_share": longest}
    numbers["choosing_share"] = choosing
    because = (
        f"Latency {TABLE_1[ATTENTION][0]:.2f} from 20-30 % less attention needs attention at "
        f"{share(needed[0])} to {share(needed[1])} of step time or more; the paper reports no "
        f"share. Reading KV takes {share(mean)} of a full batch's decode step at our mean context, "
        f"{share(longest)} at the longest"
    )
    if mean >= needed[0]:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    saving = change_pct(context.table, ATTENTION, "kv_bytes_read_per_token")
    latency = change_pct(context.table, ATTENTION, "e2e_s.mean")
    because += (
        f"; choosing pages, were every row pruned, {share(choosing)}. Our attention row: KV bytes "
        f"{text(saving, ' %')}, mean latency "
        f"{text(latency, ' %')}, queueing included."
    )
    if longest < needed[0]:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="The saving is attention's share of step time times what is cut, less choosing.",
    )


def sampling(context: Context) -> Judgement:
    """Section 6.5 and Table 1: what does a temperature loop alone change?"""
    latency = change_pct(context.table, SAMPLING, "e2e_s.mean")
    printed = 100.0 * (TABLE_1[SAMPLING][0] - 1.0)
    extra = (
        f" Table 1 prints {printed:+.2g} % latency; at equal lengths ours is "
        f"{text(latency, ' %')}: the loop adds work and removes none."
    )
    return _ranges(context.table, SAMPLING, SAMPLING_RANGES, extra)


def scheduling(context: Context) -> Judgement:
    """Section 6.6: what does an entropy order change where requests queue?"""
    return _ranges(context.crowded, SCHEDULING, SCHEDULING_RANGES)


def attention(context: Context) -> Judgement:
    """Section 6.7: what does entropic pruning save?"""
    kl = context.trace.columns["kl_pruned"]
    known = np.isfinite(kl).all(axis=1)
    levels = ", ".join(f"{value:.2g}" for value in kl[known].mean(axis=0)) if known.any() else "-"
    extra = f" Recorded KL of pruned attention, coverage .8 to .99: {levels} nat per token."
    return _ranges(context.table, ATTENTION, ATTENTION_RANGES, extra)


def full(context: Context) -> Judgement:
    """Section 6.8: what does the full loop change?"""
    return _ranges(context.table, FULL, FULL_RANGES)


def quality(context: Context, scores: Sequence[str] = ()) -> Judgement:
    """Section 6.8 and Table 1: is quality kept? ``scores`` names data a reader could score."""
    nll = change_pct(context.table, FULL, "nll_nats_per_token")
    because = f"Modelled NLL per token changes by {text(nll, ' %')} in our full row"
    if not scores:
        because = (
            "ROUGE, BLEU and human spot checks are named without a data set, a reference or a "
            f"count. {because}, which is no quality score: a colder T lowers it too."
        )
        return Judgement(ruling=Ruling.UNTESTABLE, because=because)
    kept = not beyond(nll, +1)
    return Judgement(ruling=Ruling.HOLDS if kept else Ruling.REFUTED, because=because + ".")


def interaction(served: Mapping[str, Served], metric: str, better: int) -> Interval | None:
    """Return better * (ln(full/base) - sum ln(part/base)) over seeds; plus is super-additive."""
    base = np.log(served[BASELINE].values(metric))
    parts = sum(np.log(served[row].values(metric)) - base for row in PARTS)
    gain = better * (np.log(served[FULL].values(metric)) - base - parts)
    return interval(gain.tolist()) if np.isfinite(gain).all() else None


def _gain(better: int, full: float, parts: np.ndarray) -> float:
    return better * float(np.log(full) - np.log(parts).sum())


def _ranges(
    served: Mapping[str, Served], row: str, ranges: Sequence[Range], extra: str = ""
) -> Judgement:
    """Hold a row's changes against printed ranges; see ``Range.met``."""
    listed, met, numbers = [], [], {}
    for one in ranges:
        found = change_pct(served, row, one.metric)
        numbers[f"{one.metric} %"] = np.nan if found is None else found.mean
        half = 0.0 if found is None or found.half is None else found.half
        met.append(one.met(numbers[f"{one.metric} %"], half))
        listed.append(
            f"{one.what} {text(found, ' %')} (printed {one.low:+.3g} to {one.high:+.3g} %)"
        )
    ruling = Ruling.HOLDS if all(met) else Ruling.REFUTED
    numbers = {name: value for name, value in numbers.items() if np.isfinite(value)}
    because = f"On our bench, against the baseline at equal arrivals: {'; '.join(listed)}."
    return Judgement(ruling=ruling, because=because + extra, numbers=numbers)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="setup",
        section="6.3",
        says="Identical hardware, checkpoints and prompts isolate each component.",
        judge=setup,
        command="entropic claims --only setup",
        flaws=("F39",),
    ),
    Claim(
        key="table-1",
        section="6.9",
        says="Table 1: the full system's gains are super-additive.",
        judge=printed_interaction,
        command="entropic claims --only table-1",
        flaws=("F40",),
    ),
    Claim(
        key="table-1-ours",
        section="6.10",
        says="Coupling all three scales gives more than the parts.",
        judge=our_interaction,
        command="entropic ablate --seeds 5",
        flaws=("F40",),
    ),
    Claim(
        key="sampling-only",
        section="6.5",
        says="Sampling only: collapse rate +5-8 %, throughput unchanged.",
        judge=sampling,
        command="entropic ablate --seeds 5",
        flaws=("F42",),
    ),
    Claim(
        key="scheduling-only",
        section="6.6",
        says="Scheduling only: mean latency -10-15 %, throughput +12-18 %.",
        judge=scheduling,
        command="entropic claims --only scheduling-only",
    ),
    Claim(
        key="attention-only",
        section="6.7",
        says="Attention only: KV bandwidth -15-25 %.",
        judge=attention,
        command="entropic ablate --seeds 5",
    ),
    Claim(
        key="amdahl",
        section="6.7",
        says="20-30 % fewer attention FLOPs give latency 0.85.",
        judge=amdahl,
        command="entropic claims --only amdahl",
        flaws=("F41",),
    ),
    Claim(
        key="full-system",
        section="6.8",
        says="Full system: latency -25-35 %, throughput +30-45 %, d tau/dC +40-60 %.",
        judge=full,
        command="entropic ablate --seeds 5",
    ),
    Claim(
        key="quality",
        section="6.8",
        says="Output quality is stable or slightly improved.",
        judge=quality,
        command="entropic claims --only quality",
    ),
)
