"""Section 3.1: what the printed priority does to urgent, resolved and waiting requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.core import TemperatureLaw
from controllers.priority import EntropyPriority, SeedPriority
from controllers.temperature import FeedforwardNewton, FixedTemperature
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.evidence import beyond, broken, by_group, correlation, share, text
from reports.claims.serve import BASELINE, PRINTED, SCHEDULING, SRPT, change_pct
from reports.studies.variance import run_law
from reports.verify.priority import URGENCY
from reports.verify.starvation import PROPERTIES as SIEGES

CASES = 4_000
SIEGE_CASES = 16
SPAN = 16  # tokens over which an entropy level is averaged
LEAST_PROMPTS = 8
TIGHT = FeedforwardNewton(kappa=1.0)
NOTICEABLE = 0.05  # relative change of a signal
AS_PRINTED, REPAIRED = SeedPriority(), EntropyPriority()
FREE_PCT = 1.0  # of busy time: an order that costs less wastes nothing


def signal(context: Context) -> Judgement:
    """Does past E[dH+] predict how much uncertainty a sequence will resolve?"""
    found = context.sequences
    length = found.live.sum(axis=1)
    kept = length >= 4 * SPAN
    if len(np.unique(found.prompt[kept])) < LEAST_PROMPTS:
        return Judgement(
            ruling=Ruling.UNTESTABLE,
            because=f"fewer than {LEAST_PROMPTS} prompts with {4 * SPAN} recorded tokens",
        )
    past, later, net = (np.zeros(int(kept.sum())) for _ in range(3))
    for i, s in enumerate(np.flatnonzero(kept)):
        h = context.model.h_cal[found.rows[s, : length[s]]]
        middle = len(h) // 2
        drops = np.maximum(-np.diff(h), 0.0)
        past[i], later[i] = drops[:middle].mean(), drops[middle:].mean()
        net[i] = h[middle : middle + SPAN].mean() - h[-SPAN:].mean()
    by = [by_group(values, found.prompt[kept]) for values in (past, later, net)]
    resolves, repeats = correlation(by[0], by[2]), correlation(by[0], by[1])
    numbers = f"{len(by[0])} prompts: rank correlation of E[dH+] in a sequence's first half"
    because = (
        f"{numbers} with the net fall of H in its second half {text(resolves)}, "
        f"with E[dH+] there {text(repeats)}."
    )
    given = {"with_net_fall": resolves.mean, "with_itself": repeats.mean}
    if beyond(resolves, +1):
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=given)
    end = " It finds texts whose entropy fluctuates, not ones about to resolve."
    end = end if beyond(repeats, +1) else ""
    return Judgement(ruling=Ruling.REFUTED, because=because + end, numbers=given)


def urgency(context: Context, printed: Any = AS_PRINTED, repaired: Any = REPAIRED) -> Judgement:
    """Does urgency raise the priority?"""
    bad, mended = (
        float(broken(URGENCY, law, context.rng(31), CASES).mean()) for law in (printed, repaired)
    )
    numbers = {"demoted_share": bad, "repaired_demoted_share": mended}
    because = f"Less slack lowers the printed priority in {share(bad)} of {CASES:,} random requests"
    if bad == 0.0:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    because += f", and ours in {share(mended)}: L_s stands in the denominator."
    if mended > 0.0:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="With urgency in the numerator, d(pi)/d(urgency) >= 0.",
    )


def starvation(context: Context, printed: Any = AS_PRINTED, repaired: Any = REPAIRED) -> Judgement:
    """Is everybody served, whoever else arrives?"""
    rows = {}
    for name, law in {"printed": printed, "repaired": repaired}.items():
        rng = context.rng(33)
        rows[name] = [float(broken(s, law, rng, SIEGE_CASES).sum()) for s in SIEGES]
    total = SIEGE_CASES * len(SIEGES)
    starved, mended = sum(rows["printed"]), sum(rows["repaired"])
    parts = ", ".join(
        f"{s.name.partition('.')[2].replace('_', ' ')} {int(n)}"
        for s, n in zip(SIEGES, rows["printed"], strict=True)
    )
    because = (
        f"Of {total} sieges on the serving loop the printed order starves {int(starved)} ({parts})"
    )
    numbers = {"starved": starved, "repaired_late": mended, "sieges": float(total)}
    if starved == 0.0:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    because += f"; with aging and the reservation {int(mended)} exceed their bound."
    if mended > 0.0:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="With kappa > 0 and no bypass, every gap is at most the service-gap bound.",
    )


def waste(context: Context) -> Judgement:
    """Does holding back resolved sequences save computation?"""
    served = context.crowded
    names = ("cost_s", "e2e_s.mean", "e2e_s.p99")
    printed, ours, srpt = (
        {name: change_pct(served, row, name) for name in names}
        for row in (PRINTED, SCHEDULING, SRPT)
    )
    preempted = served[PRINTED].values("preemptions").mean()
    base = served[BASELINE].values("preemptions").mean()
    because = (
        f"Under pressure, same requests, against first come first served: the printed order takes "
        f"{text(printed['cost_s'], ' %')} busy time, p99 latency "
        f"{text(printed['e2e_s.p99'], ' %')}, {preempted:.3g} preemptions against {base:.3g}"
    )
    numbers = {f"printed_{name}": _mean(found) for name, found in printed.items()}
    if not beyond(printed["cost_s"], +1):
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    because += (
        f". Repaired: {text(ours['cost_s'], ' %')} busy time, mean latency "
        f"{text(ours['e2e_s.mean'], ' %')}. Shortest remaining first, an oracle: "
        f"{text(srpt['e2e_s.mean'], ' %')}."
    )
    if beyond(ours["cost_s"], +1, FREE_PCT):
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="With a completion term and no displacement an entropy order wastes nothing.",
    )


def coexistence(context: Context, law: TemperatureLaw = TIGHT) -> Judgement:
    """Is the scheduler's signal left alone by a sampling loop that does its work?"""
    found = context.sequences
    live = found.live
    x_user, target = 0.0, float(context.model.h_cal[found.rows[live]].mean())
    means = []
    for tried in (law, FixedTemperature()):
        x = run_law(context.model, found.rows, tried, target, x_user)
        h = np.zeros(x.shape)
        h[live] = context.model.curves.outcome(found.rows[live], x[live])[0]
        drops = np.maximum(h[:, :-1] - h[:, 1:], 0.0) * live[:, 1:]
        means.append(float(drops.sum() / live[:, 1:].sum()))
    change = means[0] / means[1] - 1.0
    because = (
        f"On the recorded logits a same-step temperature loop moves E[dH+] at the applied T by "
        f"{100.0 * change:+.3g} % ({means[1]:.3g} to {means[0]:.3g} nats per token)"
    )
    numbers = {"change": change, "controlled_nats": means[0], "fixed_nats": means[1]}
    if abs(change) < NOTICEABLE:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because + ": were H held at H*, it would be 0 for all.",
        numbers=numbers,
        corrected="Read H at T_cal: the temperature loop does not enter that signal.",
    )


def _mean(found: Any) -> float:
    return 0.0 if found is None else float(found.mean)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="macro-signal",
        section="3.1",
        says="E[dH] of a sequence tells how much uncertainty serving it will resolve.",
        judge=signal,
        command="entropic claims --only macro-signal",
        flaws=("F30",),
    ),
    Claim(
        key="macro-urgency",
        section="3.1",
        says="The priority accounts for service-level urgency L_s.",
        judge=urgency,
        command="entropic verify seed",
        flaws=("F31",),
    ),
    Claim(
        key="macro-starvation",
        section="3.1",
        says="Under mild boundedness assumptions the policy avoids starvation.",
        judge=starvation,
        command="entropic verify seed",
        flaws=("F33",),
    ),
    Claim(
        key="macro-waste",
        section="3.1",
        says="Resolved sequences lose priority, which prevents wasted computation.",
        judge=waste,
        command="entropic claims --only macro-waste",
        flaws=("F34",),
    ),
    Claim(
        key="macro-coexistence",
        section="3.4",
        says="One entropy serves scheduling and sampling at once.",
        judge=coexistence,
        command="entropic claims --only macro-coexistence",
        flaws=("F35",),
    ),
)
