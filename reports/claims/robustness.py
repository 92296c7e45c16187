"""Appendix A.1 to A.3: the robustness theorem and its assumptions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from controllers.entropy import max_varentropy
from controllers.temperature import X_MAX, X_MIN
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.loops import (
    GAINS,
    SENSITIVE,
    LawOf,
    draw_cases,
    gather,
    minus,
    printed,
    slopes,
)
from reports.claims.ruling import fig, pct, ruled
from reports.verify.micro_cases import x_star
from reports.verify.micro_loop import Loop, run
from reports.verify.plants import Plant
from reports.verify.property import Cases

LANES = 1_000
STEPS = 64
REACH = 0.2  # r of the neighbourhood, ln T
NOISE_NATS = 0.005
START = 0.1  # ln T from x*
ROUNDING = 1.0 + 1e-9


def lipschitz(
    context: Context,
    limit: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Judgement:
    """Compare dH/dT on the admissible range with N_n/T_min, one L for all logits."""
    cases = draw_cases(context, 201, LANES)
    n = np.array([max_varentropy(int(k)) for k in cases["n"]])
    cases["n_max"] = np.maximum(n, max_varentropy(64))  # random rows have 64 outcomes
    cases["n_max"][cases["plant"] == "recorded"] = max_varentropy(50_257)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        return np.stack([slopes(plant)[2], picked["n_max"]])

    steepest, n_max = gather(cases, one)
    bound = n_max / math.exp(X_MIN) if limit is None else limit(n_max)
    held = steepest <= bound * ROUNDING
    largest = max_varentropy(50_257) / math.exp(X_MIN)
    return ruled(
        holds=bool(held.all()),
        because=(
            f"On T in [{fig(math.exp(X_MIN))}, {fig(math.exp(X_MAX))}] dH/dT reaches "
            f"{fig(steepest.max())} nat over {len(held):,} draws, within L = N_n/T_min in "
            f"{pct(held.mean())}; that is {fig(largest)} for n = 50,257. L grows without limit as "
            f"T_min falls to 0; in ln T the constant is N_n for every T."
        ),
        steepest=steepest.max(),
        bound=largest,
    )


def assumption_3(context: Context, sign: float = 1.0) -> Judgement:
    """Look for a mu > 0 with sign(d)(H(x*+d) - H(x*)) <= -mu |d|; then with >= +mu |d|.

    ``sign`` turns the entropy response round, for a test of the judge.
    """
    cases = draw_cases(context, 202, LANES)
    offsets = np.array([-REACH, -0.1, -0.01, 0.01, 0.1, REACH])

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        h0, v0 = plant.response(star)
        rate = np.stack([(plant.response(star + d)[0] - h0) / d for d in offsets])
        return np.stack([v0, sign * rate.min(axis=0), sign * rate.max(axis=0)])

    v, one_end, other = gather(cases, one)
    low, high = np.minimum(one_end, other), np.maximum(one_end, other)
    live = v > SENSITIVE
    falls, rises = (high < 0.0)[live], (low > 0.0)[live]
    return ruled(
        holds=bool(falls.all()),
        because=(
            f"Of {live.sum():,} draws with V > {SENSITIVE:g}, a mu > 0 as Assumption 3 asks "
            f"exists in {pct(falls.mean())}: entropy never falls with T, since dH/dlnT = V >= 0. "
            f"With the inequality turned round, in {pct(rises.mean())}."
        ),
        corrected="Locally sign(d)(H(x*+d) - H(x*)) >= mu |d|, mu > 0 where V > 0.",
        repaired=bool(rises.all()),
        draws=live.sum(),
        satisfied_share=falls.mean(),
        turned_share=rises.mean(),
    )


def theorem(context: Context, law: LawOf = printed, repair: LawOf = minus) -> Judgement:
    """Run noisy loops inside the neighbourhood against the bound (6), law by law.

    As mu stands the smallest V in the neighbourhood, the most that any assumption can offer.
    """
    cases = draw_cases(context, 203, LANES)
    runs = [_bounds(cases, f) for f in (law, repair)]
    (_, kept, asked), (calm, right, also) = runs
    broken = float((~kept)[asked].mean())
    hasty, careful = also & ~calm, also & calm
    too_fast = float((~right)[hasty].mean()) if hasty.any() else 0.0
    left = int((~right)[careful].sum())
    return ruled(
        holds=bool(kept[asked].all()),
        because=(
            f"Assumption 3 has no instance, so the theorem says nothing. Its bound (6), tried on "
            f"{asked.sum():,} noisy runs with 0 < eta mu < 1, breaks in {pct(broken)} under the "
            f"printed law. With the minus sign it breaks in {pct(too_fast)} where "
            f"eta V_max > 2 - eta mu, and in {left} of {careful.sum():,} where not."
        ),
        corrected=(
            "With a minus sign, V in [mu, v] and eta v <= 2 - eta mu: |d_t| <= (1 - eta mu)^t "
            "|d_0| + eps_H/mu."
        ),
        repaired=bool(careful.any()) and left == 0,
        runs=asked.sum(),
        broken_share=broken,
        overshoot_broken_share=too_fast,
        corrected_runs=careful.sum(),
        corrected_broken=left,
    )


def _bounds(cases: Cases, law: LawOf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per gain and draw, ``[G, B]``: no overshoot, bound (6) kept, and 0 < eta mu < 1.

    The bound is judged only as long as the run has not left the neighbourhood.
    """

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        grid = np.linspace(-REACH, REACH, 33)
        v = np.stack([plant.response(star + d)[1] for d in grid])
        low, high = v.min(axis=0), v.max(axis=0)
        kept = []
        for gain in GAINS:
            loop = Loop(
                steps=STEPS,
                x_user=star + np.where(picked["side"] == "hot", START, -START),
                x_star=star,
                noise_nats=NOISE_NATS,
            )
            error = np.abs(run(law(gain), plant, loop).error_in)
            inside = np.minimum.accumulate(error <= REACH, axis=0)
            inside = np.vstack([np.ones_like(inside[:1]), inside[:-1]])
            rate = np.maximum(1.0 - gain * low, 0.0)
            powers = rate ** np.arange(STEPS)[:, None]
            bound = powers * error[0] + NOISE_NATS / np.maximum(low, 1e-12)
            kept.append((~inside | (error <= bound * ROUNDING + 1e-9)).all(axis=0))
        return np.stack([low, high, *kept])

    low, high, *kept = gather(cases, one)
    gain = np.array(GAINS)[:, None]
    asked = (low > SENSITIVE) & (gain * low < 1.0)
    return gain * high <= 2.0 - gain * low, np.array(kept, dtype=bool), asked


def increments(context: Context, law: LawOf = printed) -> Judgement:
    """Check (4), and (5) step by step, with L measured for each draw."""
    cases = draw_cases(context, 204, LANES)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        kappa = slopes(plant)[2] * math.exp(X_MAX) * 1.01  # L from a grid
        loop = Loop(steps=8, x_user=star + START, x_star=star, noise_nats=NOISE_NATS)
        ratios = []
        for gain in GAINS:
            path = run(law(gain), plant, loop)
            before, after = np.abs(path.error_in), np.abs(path.error)
            allowed = (1.0 + gain * kappa) * before + gain * NOISE_NATS
            ratios.append((after / allowed).max(axis=0))
        apart = np.abs(path.h_in - path.target) / np.maximum(kappa * before, 1e-12)
        return np.stack([np.max(ratios, axis=0), np.where(before > 1e-6, apart, 0.0).max(axis=0)])

    step, slope = gather(cases, one)
    held = (step <= ROUNDING) & (slope <= ROUNDING)
    return ruled(
        holds=bool(held.all()),
        because=(
            f"Held in {pct(held.mean())} of {len(held):,} noisy runs at {len(GAINS)} gains: the "
            f"largest error reached {fig(step.max())} of what (5) allows. As the factor "
            f"1 + eta kappa exceeds 1, (5) allows errors to grow without end."
        ),
        largest_share_of_bound=step.max(),
        largest_share_of_slope=slope.max(),
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="lipschitz",
        section="7.1 (2), A.1",
        says="For fixed logits |H(T1) - H(T2)| <= L |T1 - T2| on the admissible range.",
        judge=lipschitz,
        command="entropic claims --only lipschitz",
    ),
    Claim(
        key="assumption-3",
        section="A.3",
        says="Near T* entropy moves against temperature with slope mu > 0.",
        judge=assumption_3,
        command="entropic claims --only assumption-3",
        flaws=("F11",),
    ),
    Claim(
        key="thm-a1",
        section="A.3",
        says="Theorem 1 (ISS): for 0 < eta mu < 1, |d_t| <= a^t |d_0| + eps_H/mu.",
        judge=theorem,
        command="entropic claims --only thm-a1",
        flaws=("F11", "F12"),
    ),
    Claim(
        key="eq-5",
        section="A.3",
        says="(4), (5): |d_{t+1}| <= (1 + eta kappa)|d_t| + eta |e_t|, kappa = L T_max.",
        judge=increments,
        command="entropic claims --only eq-5",
    ),
)
