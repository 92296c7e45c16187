"""Sections 7.1 (3) and 7.3: bounded resources, bounded priority, and starvation."""

from __future__ import annotations

import numpy as np

from controllers.priority import EntropyPriority, PriorityLaw, SeedPriority
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.ruling import fig, pct, ruled
from reports.verify import starvation
from reports.verify.draw import draw
from reports.verify.priority import Bounded, load_signal
from reports.verify.property import Property, excess
from reports.verify.sieges import fresh_arrivals
from simulator.starvation import besiege

LANES = 1_000
SIEGES = 24
PRICES = (1.0, 1e-2, 1e-4)  # seconds of modelled cost, at the cheapest


def finite_resources(context: Context, law: PriorityLaw | None = None) -> Judgement:
    """Besiege the serving loop and count rows and unfinished requests in each step."""
    prop = starvation.PROPERTIES[0]
    tried = SeedPriority() if law is None else law
    cases = draw(prop.space(tried), context.rng(302), 8)
    over, most = 0, 0.0
    for lane in range(8):
        case = {name: column[lane].item() for name, column in cases.items()}
        siege = fresh_arrivals(case)
        preset = starvation.preset_of(tried, case)
        ordeal = besiege(preset, siege, 100, watch=True)
        rows = max(len(moment.ran) for moment in ordeal.moments)
        most = max(most, rows / siege.limits.max_seqs)
        over += int(rows > siege.limits.max_seqs)
    return ruled(
        holds=over == 0,
        because=(
            f"In 8 crowded runs of the serving loop the rows of a step reached {pct(most)} of the "
            f"slots, and passed them in {over}. The engine's limits make this true whatever the "
            f"law does."
        ),
        most_of_slots=most,
        runs_over=over,
    )


def prop_2(
    context: Context, law: PriorityLaw | None = None, repair: PriorityLaw | None = None
) -> Judgement:
    """Let costs, memory and urgency be nonnegative and bounded, and small."""
    printed_law = SeedPriority() if law is None else law
    repaired_law = EntropyPriority() if repair is None else repair
    rng = context.rng(303)
    collapse = rng.uniform(0.5, 4.0, LANES)
    tops = [_highest(printed_law, collapse, price) for price in PRICES]
    growth = tops[-1] / max(tops[-2], 1e-12)  # from 10 ms to .1 ms
    prop = Bounded()
    cases = draw(prop.space(repaired_law), rng, LANES)
    broken = int((excess(prop.measure(repaired_law, cases)) > 0.0).sum())
    return ruled(
        holds=growth < 2.0,
        because=(
            f"With E[dH] under 4 nats and all terms bounded and nonnegative, the printed score "
            f"reaches {fig(tops[0])}, {fig(tops[1])} and {fig(tops[2])} as the cheapest request "
            f"costs 1 s, 10 ms and 0.1 ms: the denominator may go to 0. The clipped score passes "
            f"its bound in {broken} of {LANES:,} draws."
        ),
        corrected="With a floor c_min > 0 under the denominator, or a clip: pi <= pi_max.",
        repaired=broken == 0,
        growth=growth,
        corrected_broken=broken,
    )


def _highest(law: PriorityLaw, collapse: np.ndarray, price: float) -> float:
    signal = load_signal(len(collapse), collapse_nats=collapse, cost_s=price, slack_s=1e3)
    return float(np.max(law.update(law.init(signal), signal)[1]))


def prop_3(
    context: Context, law: PriorityLaw | None = None, repair: PriorityLaw | None = None
) -> Judgement:
    """Besiege the printed order and the aged one with the same two adversaries."""
    orders = (
        SeedPriority() if law is None else law,
        EntropyPriority() if repair is None else repair,
    )
    found = [
        [_siege(context, prop, order) for prop in starvation.PROPERTIES[:2]] for order in orders
    ]
    (fresh, frozen), aged = found
    safe = all(broken == 0 for broken, _, _ in aged)
    gap = max(longest for _, longest, _ in aged)
    room = max(bound for _, _, bound in aged)
    return ruled(
        holds=fresh[0] == 0 and frozen[0] == 0,
        because=(
            f"Printed order: {fresh[0]} of {SIEGES} steady streams of fresh requests, and "
            f"{frozen[0]} of {SIEGES} sieges of a preempted one, left the victim unserved to the "
            f"end of {starvation.HORIZON} steps. A waiting request's entropy is frozen, so its "
            f"variance is no premise. Aged order: longest gap {fig(gap)} steps, bound {fig(room)}."
        ),
        corrected="With aging kappa > 0 and no bypass, every gap is at most the service-gap bound.",
        repaired=safe,
        starved_by_fresh=fresh[0],
        starved_when_frozen=frozen[0],
        sieges=SIEGES,
        aged_longest_gap=gap,
    )


def _siege(context: Context, prop: Property, law: PriorityLaw) -> tuple[int, float, float]:
    """Return how many sieges starved the victim, its longest gap, and the largest bound."""
    cases = draw(prop.space(law), context.rng(304), SIEGES)
    measured = prop.measure(law, cases)
    broken = excess(measured) > 0.0
    return int(broken.sum()), float(measured.value.max()), float(measured.bound.max())


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="finite-resources",
        section="7.1 (3)",
        says="Compute, memory and attention capacity are bounded per step.",
        judge=finite_resources,
        command="entropic claims --only finite-resources",
    ),
    Claim(
        key="prop-2",
        section="7.3",
        says="Proposition 2: with nonnegative bounded terms the priority is uniformly bounded.",
        judge=prop_2,
        command="entropic claims --only prop-2",
        flaws=("F32",),
    ),
    Claim(
        key="prop-3",
        section="7.3",
        says="Proposition 3: nonzero entropy variance guarantees every sequence eventual service.",
        judge=prop_3,
        command="entropic verify SeedPriority",
        flaws=("F33",),
    ),
)
