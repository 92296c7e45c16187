"""Appendix A.5: the design rule, moving logits, and what clipping gives."""

from __future__ import annotations

import math

import numpy as np

from controllers import certificates
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.loops import GAINS, SENSITIVE, LawOf, draw_cases, gather, printed
from reports.claims.ruling import fig, pct, ruled
from reports.verify.micro_cases import by_plant, x_star
from reports.verify.micro_loop import Loop, run
from reports.verify.micro_tube import slopes_met
from reports.verify.plants import Plant
from reports.verify.property import Cases

LANES = 1_000
STEPS = 64
DRIFT = 0.02  # ln T a token
ROUNDING = 1.0 + 1e-9


def slowly_varying(context: Context, slow: float = 0.1) -> Judgement:
    """Measure how far x* moves between recorded tokens, and what drift does to the bound."""
    moves = _recorded_moves(context)
    typical, fast = float(np.median(moves)), float((moves > slow).mean())
    cases = draw_cases(context, 205, 300)
    law = EntropyFeedback()
    worst, without, within, lanes = 0.0, 0, 0, 0
    for _, picked, plant in by_plant(cases):
        star = x_star(picked)
        loop = Loop(steps=128, x_user=star, x_star=star, noise_nats=0.02, drift=DRIFT)
        path = run(law, plant, loop)
        error = np.abs(path.error).max(axis=0)
        for mu, v, e in zip(*slopes_met(path, plant), error, strict=True):
            if mu <= SENSITIVE:
                continue
            proof = certificates.iss(law, float(mu), 0.02, DRIFT, v_max=float(max(v, mu)))
            assert proof is not None
            lanes += 1
            without += int(e > 0.02 / mu * ROUNDING)
            within += int(e <= proof.bound * ROUNDING + 1e-9)
            worst = max(worst, float(e * mu / 0.02))
    return ruled(
        holds=typical <= slow and without == 0,
        because=(
            f"Between recorded tokens the T that gives H = 1 nat moves by {fig(typical)} in ln T "
            f"(median), by more than {slow:g} in {pct(fast)}: not slow. With x* drifting "
            f"{DRIFT:g} a token, errors pass eps_H/mu in {without} of {lanes} runs, by a factor "
            f"of {fig(worst)} at worst; a radius with the drift in it holds in {within}."
        ),
        corrected="Add the drift d of x*: eps_H/mu + d (1 - g mu)/(g mu), if no step overshoots.",
        repaired=lanes > 0 and within == lanes,
        median_move=typical,
        fast_share=fast,
        runs=lanes,
        beyond_without_drift=without,
        within_with_drift=within,
    )


def _recorded_moves(context: Context) -> np.ndarray:
    """Return |x*_{t+1} - x*_t| of neighbouring recorded tokens that can both reach 1 nat."""
    curves, rows = context.model.curves, np.arange(context.trace.rows)
    low, high = (np.full(len(rows), x) for x in (curves.x_nodes[0], curves.x_nodes[-1]))
    reach = (curves.entropy(rows, low)[0] <= 1.0) & (curves.entropy(rows, high)[0] >= 1.0)
    for _ in range(30):
        middle = 0.5 * (low + high)
        colder = curves.entropy(rows, middle)[0] < 1.0
        low, high = np.where(colder, middle, low), np.where(colder, high, middle)
    same = np.diff(context.trace.columns["request"]) == 0
    return np.abs(np.diff(low))[same & reach[1:] & reach[:-1]]


def design_rule(context: Context, noise_nats: float = 0.1, temperature: float = 0.8) -> Judgement:
    """Ask of each recorded request how small its mu is, and what eps_H/mu then comes to."""
    rows = np.arange(context.trace.rows)
    h, v = context.model.curves.entropy(rows, np.full(len(rows), math.log(temperature)))
    span = X_MAX - X_MIN
    radius, floored = (
        _radii(context, np.where(kept, v, np.inf), noise_nats)
        for kept in (np.ones(len(v), dtype=bool), h >= noise_nats)
    )
    useless, above = (float((r > span).mean()) for r in (radius, floored))
    return ruled(
        holds=useless < 0.01,
        because=(
            f"mu must bound V below on every token. At T = {temperature:g} and eps_H = "
            f"{noise_nats:g} nat, eps_H/mu exceeds the whole range of ln T, {fig(span)}, in "
            f"{pct(useless)} of {len(radius)} recorded requests: {pct((v < 0.05).mean())} of "
            f"tokens have V < .05 nat^2. Without the tokens under an entropy floor of "
            f"{noise_nats:g} nat it still does in {pct(above)}; and the floors act on pruning, "
            f"not on this loop."
        ),
        useless_share=useless,
        useless_above_floor_share=above,
        flat_token_share=(v < 0.05).mean(),
        median_radius=float(np.median(radius)),
    )


def _radii(context: Context, v: np.ndarray, noise_nats: float) -> np.ndarray:
    """Return eps_H over the smallest V of each recorded request."""
    least = [v[a:b].min() for a, b in context.model.slices.tolist() if b > a]
    return noise_nats / np.maximum(least, 1e-300)


def clipping(context: Context, law: LawOf = printed) -> Judgement:
    """Run the law under large noise and drift, at every gain, and look where T goes."""
    cases = draw_cases(context, 206, LANES)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        loop = Loop(steps=STEPS, x_user=star, x_star=star, noise_nats=2.0, drift=0.1)
        paths = [run(law(gain), plant, loop).u for gain in (*GAINS, 10.0)]
        return np.stack([np.min(paths, axis=(0, 1)), np.max(paths, axis=(0, 1))])

    low, high = gather(cases, one)
    held = (low >= X_MIN - 1e-6) & (high <= X_MAX + 1e-6)
    return ruled(
        holds=bool(held.all()),
        because=(
            f"Under noise of 2 nats, drift of 0.1 a token and gains up to 10, T stayed in "
            f"[{fig(np.exp(low.min()))}, {fig(np.exp(high.max()))}] in all of {len(held):,} draws. "
            f"Boundedness is all that clipping gives; it is no convergence."
            if held.all()
            else f"T left the clips in {pct((~held).mean())} of {len(held):,} draws."
        ),
        lowest_temperature=np.exp(low.min()),
        highest_temperature=np.exp(high.max()),
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="design-rule",
        section="A.5",
        says="eps_H <= mu eps keeps the error of ln T below eps; guards keep mu from being small.",
        judge=design_rule,
        command="entropic claims --only design-rule",
        flaws=("F14",),
    ),
    Claim(
        key="remark-a5",
        section="A.5",
        says="The analysis extends to text by taking logits as slowly varying.",
        judge=slowly_varying,
        command="entropic claims --only remark-a5",
        flaws=("F15",),
    ),
    Claim(
        key="clipping",
        section="A.5",
        says="Clipping ensures that T stays bounded.",
        judge=clipping,
        command="entropic claims --only clipping",
    ),
)
