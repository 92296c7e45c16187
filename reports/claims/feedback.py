"""Sections 3.3 and 5: guards of the pruning threshold, and the loop that pruning closes."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.certificates.coupling import meso_slope
from controllers.coverage import EntropyCoverage, SeedCoverage
from controllers.scores import page_mass
from controllers.selection import CoverageSelection, Pins, Selection, ThresholdSelection
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.evidence import broken, share
from reports.verify.coverage import Direction
from reports.verify.coverage_runs import token_signal
from traces.schema import COVERAGES, PRUNED_NODES, T_NODES

CASES = 2_000
NODE = 1  # of PRUNED_NODES: the recorded temperature nearest T_cal
GRID = 401  # coverages at which the loop is looked for solutions
PAGE, PAGES, B_MIN = 16, 1024, 4
SURE_NATS, UNSURE_NATS = 0.0, 3.0
CATASTROPHE = 0.5  # of the attention mass
MOSTLY = 0.95  # share of rows that makes a sign
PRINTED, REPAIRED = SeedCoverage(), EntropyCoverage()
AT_THRESHOLD = ThresholdSelection(theta=2.0 / PAGES, min_pages=B_MIN)


def floor(context: Context, printed: Any = PRINTED, repaired: Any = REPAIRED) -> Judgement:
    """Does the uncertainty floor make pruning more careful?"""
    bad, mended = (
        float(broken(Direction(), law, context.rng(23), CASES).mean())
        for law in (printed, repaired)
    )
    because = (
        f"The floor H - eps falls as the error eps grows. Of {CASES:,} random pairs of margins a "
        f"larger one prunes more in {share(bad)} under the printed floor"
    )
    numbers = {"prunes_more_share": bad, "repaired_share": mended}
    if bad == 0.0:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    because += f", in {share(mended)} under H + eps."
    if mended > 0.0:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="H_up = max(H + eps, H_min), with coverage non-decreasing in H_up.",
    )


def simultaneous(context: Context, law: Any = PRINTED) -> Judgement:
    """Is theta_t well defined by an entropy that is measured after pruning with theta_t?"""
    rows = _pruned_rows(context)
    if not len(rows):
        return Judgement(ruling=Ruling.UNTESTABLE, because="The trace holds no pruned rows.")
    levels = np.append(COVERAGES, 1.0)
    p = np.linspace(COVERAGES[0], COVERAGES[-1], GRID)
    gap = np.stack(
        [_command(law, np.interp(p, levels, h)) - p for h in _entropy_by_coverage(context, rows)]
    )
    crossings = (np.diff(np.sign(gap), axis=1) != 0).sum(axis=1)
    several = float((crossings > 2).mean())  # touching a grid point counts twice
    steepest = float(np.diff(gap, axis=1).max() / (p[1] - p[0])) + 1.0
    because = (
        f"On {len(rows)} rows recorded under pruning, the entropy after pruning and the coverage "
        f"it asks for agree at more than one coverage in {share(several)}; that takes a loop gain "
        f"above 1 where they agree; the largest anywhere is {steepest:.2g}"
    )
    numbers = {"ambiguous_share": several, "rows": float(len(rows)), "largest_gain": steepest}
    if several == 0.0:
        end = ". Solving for it costs a second pass of attention; reading H_{t-1} costs none."
        return Judgement(ruling=Ruling.HOLDS, because=because + end, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because + ": an algebraic loop with several answers.",
        numbers=numbers,
        corrected="theta_t from H_{t-1}: one answer, one step late, and the delay counts.",
    )


def feedback(context: Context, law: Any = REPAIRED) -> Judgement:
    """Is the loop from pruning through entropy back to pruning a restoring one?"""
    rows = _pruned_rows(context)
    if not len(rows):
        return Judgement(ruling=Ruling.UNTESTABLE, because="The trace holds no pruned rows.")
    h = _entropy_by_coverage(context, rows)
    moved = h[:, :-1] - h[:, -1:]  # pruned less dense
    restoring = float((moved > 0.0).mean())
    slope = np.abs(moved) / (1.0 - COVERAGES)
    gain = (meso_slope(law) or 0.0) * slope
    typical, high = float(np.sqrt((gain**2).mean())), float(np.quantile(gain, MOSTLY))
    because = (
        f"Pruning raises the recorded entropy in {share(restoring)} of {moved.size} cases and "
        f"lowers it in the others, so the loop restores about as often as it drives"
        if 1.0 - MOSTLY < restoring < MOSTLY
        else f"Pruning raises the recorded entropy in {share(restoring)} of {moved.size} cases"
    )
    because += f". Loop gain |dH/dp| dp/dH of our law: rms {typical:.2g}, 95 % below {high:.2g}."
    numbers = {"restoring_share": restoring, "gain_rms": typical, "gain_95": high}
    if restoring >= MOSTLY:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    if high >= 1.0:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="Of either sign and small: a coverage range of few per cent keeps the gain < 1.",
    )


def guards(
    context: Context,
    printed: Selection = AT_THRESHOLD,
    repaired: Any = REPAIRED,
) -> Judgement:
    """Do B_min and H_min prevent catastrophic pruning on one wrong entropy?"""
    weights = np.full(PAGE * PAGES, 1.0 / (PAGE * PAGES))
    mass = page_mass(weights, PAGE)
    pins = Pins(min_pages=B_MIN)
    lost = 1.0 - float(mass[printed.keep(mass, pins)].sum())
    signal = token_signal(1, h_cal=UNSURE_NATS, h_in=UNSURE_NATS)
    state = repaired.init(signal)
    for _ in range(64):
        state, _ = repaired.update(state, signal)
    wrong = token_signal(1, h_cal=SURE_NATS, h_in=SURE_NATS)
    coverage = float(np.asarray(repaired.update(state, wrong)[1])[0])
    ours = 1.0 - float(mass[CoverageSelection(coverage=coverage).keep(mass, pins)].sum())
    because = (
        f"Flat attention over {PAGES:,} pages, a theta of twice a page's mean share: B_min = "
        f"{B_MIN} is respected and {share(lost)} of the mass is dropped. Under a coverage with "
        f"floor and rate limit, one step of H = 0 in place of {UNSURE_NATS:g} nats drops "
        f"{share(ours)}. The paper gives no values for B_min, H_min or the rates."
    )
    numbers = {"printed_dropped": lost, "our_dropped": ours}
    if lost < CATASTROPHE:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED if ours < CATASTROPHE else Ruling.REFUTED,
        because=because,
        numbers=numbers,
        corrected="A floor p_min on coverage bounds the mass dropped by 1 - p_min at every step.",
    )


def _pruned_rows(context: Context) -> np.ndarray:
    pruned = context.trace.columns["h_pruned"]
    return np.flatnonzero(np.isfinite(pruned).all(axis=(1, 2)))


def _entropy_by_coverage(context: Context, rows: np.ndarray) -> np.ndarray:
    """Return H at the recorded coverages and dense, nats ``[rows, C + 1]``."""
    columns = context.trace.columns
    pruned = columns["h_pruned"][rows][:, :, NODE].astype(np.float64)
    dense = columns["h"][rows, PRUNED_NODES[NODE]].astype(np.float64)
    return np.concatenate([pruned, dense[:, None]], axis=1)


def _command(law: Any, h: np.ndarray) -> np.ndarray:
    """Return the coverage that fresh lanes of ``law`` ask for at ``h`` ``[B]``."""
    signal = token_signal(len(h), h_cal=h, h_in=h)
    return np.asarray(law.update(law.init(signal), signal)[1], np.float64)


assert abs(T_NODES[PRUNED_NODES[NODE]] - 1.0) < 0.2

CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="floor",
        section="3.3",
        says="The floor H - eps makes pruning conservative when entropy is underestimated.",
        judge=floor,
        command="entropic verify seed",
        flaws=("F23",),
    ),
    Claim(
        key="threshold-loop",
        section="3.3",
        says="theta_t follows the current entropy, which is measured after pruning.",
        judge=simultaneous,
        command="entropic claims --only threshold-loop",
        flaws=("F24",),
    ),
    Claim(
        key="pruning-feedback",
        section="3.4",
        says="Attention, logits and entropy form a feedback that keeps itself in balance.",
        judge=feedback,
        command="entropic claims --only pruning-feedback",
        flaws=("F28",),
    ),
    Claim(
        key="guards",
        section="5",
        says="B_min, H_min and rate limits rule out catastrophic pruning.",
        judge=guards,
        command="entropic claims --only guards",
        flaws=("F29",),
    ),
)
