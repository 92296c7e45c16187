"""Section 7.2: does the printed temperature update contract, and what does it contract to?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from controllers.entropy import max_varentropy
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.loops import (
    GAINS,
    SENSITIVE,
    LawOf,
    as_served,
    closed,
    draw_cases,
    endings,
    gather,
    minus,
    multiplier,
    printed,
    slopes,
    stuck,
)
from reports.claims.ruling import fig, pct, ruled
from reports.verify.micro_cases import x_star
from reports.verify.plants import Plant, peak_levels
from reports.verify.property import Cases

LANES = 1_500
PATHS = 200  # of long runs
STEPS = 1_000  # enough for gain .1 to reach a clip wherever V > .02
ETA = 0.1
WIDE_X_MAX = math.log(6.0)  # of the draws that let T exceed 2


def prop_1(context: Context, law: LawOf = printed, repair: LawOf = minus) -> Judgement:
    """Measure the multiplier of a small error wherever eta L < 1; then with the minus sign."""
    cases = draw_cases(context, 101, LANES)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        _, v_max, lipschitz = slopes(plant)
        here = plant.response(star)[1]
        laws = [f(g) for f in (law, repair) for g in GAINS]
        factors = [np.abs(multiplier(each, plant, star)) for each in laws]
        return np.stack([here, np.maximum(v_max, here), lipschitz, *factors])

    here, v_max, lipschitz, *factors = gather(cases, one)
    gains = np.array(GAINS)[:, None]
    live = here > SENSITIVE
    as_printed, repaired = np.split(np.array(factors), 2)
    asked = live & (gains * lipschitz < 1.0)
    safe = live & (gains * v_max < 2.0)
    grown = asked & (as_printed >= 1.0)
    broken = safe & (repaired >= 1.0)
    worst = float(as_printed[asked].max())
    return ruled(
        holds=not grown.any(),
        because=(
            f"On {asked.sum():,} draws with eta L < 1 and V > {SENSITIVE:g}, the printed step "
            f"multiplies a small error by 1 or more in {pct(grown.sum() / asked.sum())}, by "
            f"{fig(worst)} at worst. With the minus sign and eta V < 2 it grows in "
            f"{broken.sum()} of {safe.sum():,}."
        ),
        corrected="With a minus sign, the update contracts locally wherever 0 < eta V < 2.",
        repaired=bool(safe.any() and not broken.any()),
        draws=asked.sum(),
        expanding=grown.sum(),
        worst_multiplier=worst,
        corrected_draws=safe.sum(),
        corrected_expanding=broken.sum(),
    )


def enough_gain(context: Context, repair: LawOf | None = None) -> Judgement:
    """Test eta L < 1 as a condition for the law with its sign corrected, T up to 6."""
    rng = context.rng(102)
    star = np.log(rng.uniform(0.4, 4.0, LANES))
    plant = peak_levels(rng.integers(2, 50_258, LANES), star)
    _, v_max, lipschitz = slopes(plant, high=WIDE_X_MAX)
    here = plant.response(star)[1]
    law = repair or (lambda g: EntropyFeedback(gain=g, c=math.inf, rate=math.inf, x_max=WIDE_X_MAX))
    gains = np.geomspace(0.01, 1.0, 25)
    factors = np.abs(np.stack([multiplier(law(float(g)), plant, star) for g in gains]))
    asked = gains[:, None] * lipschitz < 1.0
    safe = gains[:, None] * np.maximum(v_max, here) < 2.0
    grown, broken = asked & (factors > 1.0), safe & (factors > 1.0)
    worst = float(factors[asked].max())
    return ruled(
        holds=not grown.any(),
        because=(
            f"Sign corrected, needle-shaped rows with T* up to 4: eta L < 1 still lets "
            f"{grown.sum():,} of {asked.sum():,} draws grow, by {fig(worst)} a step at worst; "
            f"eta V_max < 2 lets {broken.sum()} of {safe.sum():,}. L bounds dH/dT, and the loop's "
            f"slope is V = T dH/dT."
        ),
        corrected="eta V_max < 2; for any logits over n outcomes, eta < 2/N_n.",
        repaired=not broken.any(),
        draws=asked.sum(),
        expanding=grown.sum(),
        worst_multiplier=worst,
        any_logits_gain=2.0 / max_varentropy(50_257),
    )


def direction(context: Context, law: LawOf = printed, repair: LawOf = minus) -> Judgement:
    """Look at the first move of T above and below the set-point."""
    cases = draw_cases(context, 103, LANES)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        both = [closed(f(ETA), picked, plant, 1) for f in (law, repair)]
        error = both[0].h_in[0] - both[0].target[0]
        return np.stack([error, *(path.u[0] - path.x_in[0] for path in both)])

    error, moved, repaired = gather(cases, one)
    clear = np.abs(error) > SENSITIVE
    toward, also = (float((m * error < 0.0)[clear].mean()) for m in (moved, repaired))
    return ruled(
        holds=toward == 1.0,
        because=(
            f"Of {clear.sum():,} first moves off the set-point, the printed law makes "
            f"{pct(toward)} toward it: it heats when H > H* and cools when H < H*. With the minus "
            f"sign, {pct(also)}."
        ),
        corrected="With a minus sign, high entropy lowers T and low entropy raises it.",
        repaired=also == 1.0,
        draws=clear.sum(),
        toward_share=toward,
        corrected_toward_share=also,
    )


def linearisation(context: Context, law: LawOf = printed) -> Judgement:
    """Compare the printed multiplier 1 - eta H'(T*) with the measured one, and with 1 + eta V."""
    cases = draw_cases(context, 104, LANES)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        v = plant.response(star)[1]
        return np.stack([multiplier(law(ETA), plant, star), v, v * np.exp(-star)])

    measured, v, slope = gather(cases, one)
    said, right = 1.0 - ETA * slope, 1.0 + ETA * v
    off, left = (float(np.abs(x - measured).max()) for x in (said, right))
    live = v > SENSITIVE
    flipped = float((np.sign(said - 1.0) != np.sign(measured - 1.0))[live].mean())
    return ruled(
        holds=off < 0.01,
        because=(
            f"At eta = {ETA:g} the printed multiplier 1 - eta H'(T*) misses the measured one by up "
            f"to {fig(off)} and is on the wrong side of 1 in {pct(flipped)} of the draws; "
            f"1 + eta T* H'(T*) misses it by {fig(left)}. Sign and factor T* are both lost."
        ),
        corrected="The printed law multiplies a small error by 1 + eta T* H'(T*) = 1 + eta V.",
        repaired=left < 0.01,
        draws=len(v),
        printed_error=off,
        corrected_error=left,
        wrong_side_share=flipped,
    )


def equilibrium(context: Context, low: float = X_MIN, high: float = X_MAX) -> Judgement:
    """Look for T with H(T) = H* between the clips, for legal set-points and for the recording."""
    cases = draw_cases(context, 105, LANES)
    share = context.rng(106).random(LANES)
    cases["ask"] = share  # of ln n

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        target = picked["ask"] * plant.most_nats()
        x_low, x_high = (np.full(plant.lanes, x) for x in (low, high))
        ends = plant.response(x_low)[0], plant.response(x_high)[0]
        for _ in range(60):
            middle = 0.5 * (x_low + x_high)
            colder = plant.response(middle)[0] < target
            x_low, x_high = np.where(colder, middle, x_low), np.where(colder, x_high, middle)
        return np.stack([ends[0], ends[1], target, plant.response(x_low)[0] - target])

    cold, hot, target, miss = gather(cases, one)
    within = (cold <= target) & (target <= hot)
    found = np.abs(miss) < 1e-6
    rows = np.arange(context.trace.rows)
    h_cold, h_hot = (
        context.model.curves.entropy(rows, np.full(len(rows), x))[0]
        for x in (max(low, X_MIN), min(high, X_MAX))
    )
    recorded = 1.0 - float(((h_cold <= 1.0) & (h_hot >= 1.0)).mean())
    return ruled(
        holds=bool(found.all()),
        because=(
            f"For {pct(1 - found.mean())} of random rows with H* drawn from [0, ln n] no T in "
            f"[{fig(math.exp(low))}, {fig(math.exp(high))}] gives H*; of recorded tokens, "
            f"{pct(recorded)} cannot reach H* = 1 nat. Where H(T_min) <= H* <= H(T_max), bisection "
            f"finds one in {pct(found[within].mean())}."
        ),
        corrected="A fixed point exists iff H(T_min) <= H* <= H(T_max); else T ends on a clip.",
        repaired=bool((found == within).mean() > 0.999 and found[within].all()),
        draws=len(found),
        without_share=1.0 - found.mean(),
        recorded_without_share=recorded,
    )


def suppresses(context: Context, law: LawOf = as_served) -> Judgement:
    """Let both laws run on draws whose equilibrium lies well between the clips."""
    cases = draw_cases(context, 107, PATHS)
    ends = [endings(each, cases, STEPS) for each in (law(ETA), EntropyFeedback())]
    railed, our_railed = (float(stuck(each).mean()) for each in ends)
    worse, our_worse = (
        float((last > first * (1.0 + 1e-6) + 1e-9).mean()) for _, _, first, last, _, _ in ends
    )
    live = context.results.get("stability")
    note = "" if live is None else _live_clips(live)
    return ruled(
        holds=railed < 0.01 and worse < 0.01,
        because=(
            f"Equilibria in T = [.4, 1.5]: after {STEPS:,} steps the printed law (eta {ETA:g}) "
            f"sits on a clip, off H*, in {pct(railed)} of {PATHS} draws; the corrected law in "
            f"{pct(our_railed)}, ending no further away than it began in {pct(1 - our_worse)}."
            f"{note}"
        ),
        corrected="The law with the minus sign and gain below 2/N_n stays off the clips.",
        repaired=our_railed < 0.01 and our_worse < 0.01,
        clip_share=railed,
        corrected_clip_share=our_railed,
    )


def _live_clips(document: Mapping[str, Any]) -> str:
    rows = {row["preset"]: row["seeds"] for row in document["rows"]}
    shares = {
        name: float(np.mean([seed["clip_share"] for seed in rows[name]]))
        for name in ("seed", "full")
        if name in rows
    }
    said = " and ".join(f"{pct(share)} under {name}" for name, share in shares.items())
    return f" Live, tokens sampled on a clip: {said}." if said else ""


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="prop-1",
        section="7.2",
        says="Proposition 1: if eta L < 1, the temperature update is a contraction near T*.",
        judge=prop_1,
        command="entropic verify SeedLiteral",
        flaws=("F8", "F9"),
    ),
    Claim(
        key="prop-1-gain",
        section="7.2",
        says="The condition eta L < 1, L the Lipschitz constant of H(T), is what limits the gain.",
        judge=enough_gain,
        command="entropic claims --only prop-1-gain",
        flaws=("F10",),
    ),
    Claim(
        key="law-direction",
        section="3.3",
        says="High entropy is driven toward commitment, low entropy is kept from collapse.",
        judge=direction,
        command="entropic claims --only law-direction",
        flaws=("F8",),
    ),
    Claim(
        key="linearisation",
        section="7.2",
        says="Around T* the update multiplies a small error by 1 - eta dH/dT.",
        judge=linearisation,
        command="entropic claims --only linearisation",
        flaws=("F9",),
    ),
    Claim(
        key="equilibrium",
        section="7.2",
        says="A T* with H(T*) = H* exists by continuity and boundedness.",
        judge=equilibrium,
        command="entropic claims --only equilibrium",
        flaws=("F13",),
    ),
    Claim(
        key="oscillations",
        section="7.2",
        says="The update suppresses oscillations and prevents collapse and explosion of entropy.",
        judge=suppresses,
        command="entropic stability",
        flaws=("F8",),
    ),
)
