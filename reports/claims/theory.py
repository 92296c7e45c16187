"""Sections 7.1 (1) and 7.4: bounded entropy, the coupled system; and all proofs, listed."""

from __future__ import annotations

import numpy as np

from controllers.entropy import entropy_varentropy
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback
from reports.claims import contraction, remarks, robustness, service
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.loops import (
    GAINS,
    LawOf,
    as_served,
    draw_cases,
    endings,
    gather,
    printed,
    stuck,
)
from reports.claims.ruling import fig, pct, ruled
from reports.verify.micro_cases import x_star
from reports.verify.micro_loop import Loop, run
from reports.verify.plants import Plant
from reports.verify.property import Cases

LANES = 1_000
PATHS = 200  # of long runs
STEPS = 1_000


def bounded_entropy(context: Context) -> Judgement:
    """Evaluate H on rows that are steep, flat, tied or masked."""
    rng = context.rng(301)
    rows = rng.normal(size=(400, 257)) * np.geomspace(1e-3, 1e3, 400)[:, None]
    rows[::5, 1:] = rows[::5, :1]  # ties
    rows[1::5, ::2] = -np.inf  # masked
    h = entropy_varentropy(rows, rng.uniform(X_MIN, X_MAX, 400))[0]
    held = (h >= 0.0) & (h <= np.log(257) * (1.0 + 1e-12))
    return ruled(
        holds=bool(held.all()),
        because=(
            f"Over 400 rows of 257 outcomes, steep, flat, tied and masked, H lay in "
            f"[{fig(h.min())}, {fig(h.max())}]; the limit ln n is {fig(np.log(257))}."
        ),
        lowest=h.min(),
        highest=h.max(),
    )


def theorem_1(context: Context, law: LawOf = printed) -> Judgement:
    """Disturb the loop at gains on both sides of eta L = 1, and see whether anything escapes."""
    cases = draw_cases(context, 305, LANES)
    gains = (*GAINS, 10.0)

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        star = x_star(picked)
        loop = Loop(steps=64, x_user=star, x_star=star, noise_nats=1.0)
        paths = [run(law(gain), plant, loop) for gain in gains]
        cold = np.min([path.u for path in paths], axis=(0, 1))
        hot = np.max([path.u for path in paths], axis=(0, 1))
        h = np.max([path.h_in for path in paths], axis=(0, 1)) - plant.most_nats()
        return np.stack([cold, hot, h])

    cold, hot, over = gather(cases, one)
    held = (cold >= X_MIN - 1e-6) & (hot <= X_MAX + 1e-6) & (over <= 1e-9)
    return ruled(
        holds=bool(held.all()),
        because=(
            f"T stayed between its clips and H below ln n in {pct(held.mean())} of {LANES:,} draws "
            f"at gains from {GAINS[0]:g} to 10, so with eta L < 1 and far beyond it: the clips, "
            f"ln n and the slots bound everything, and assumption (i) does nothing. The set is "
            f"bounded; nothing in it need be stable."
        ),
        held_share=held.mean(),
        draws=LANES,
    )


def small_gain(context: Context, most: float = 2.0) -> Judgement:
    """Couple two loops, each stable alone, with gains across that the paper never bounds."""
    rng = context.rng(306)
    own = rng.uniform(0.0, 0.99, (20_000, 2))
    across = rng.uniform(0.0, most, (20_000, 2))
    matrix = np.zeros((20_000, 2, 2))
    matrix[:, 0, 0], matrix[:, 1, 1] = own.T
    matrix[:, 0, 1], matrix[:, 1, 0] = across.T
    radius = np.abs(np.linalg.eigvals(matrix)).max(axis=1)
    unstable = radius >= 1.0
    condition = (1.0 - own).prod(axis=1) > across.prod(axis=1)
    wrong = int((condition & unstable).sum())
    return ruled(
        holds=not unstable.any(),
        because=(
            f"Of 20,000 pairs of loops, each stable alone, with cross gains up to {most:g}, "
            f"{pct(unstable.mean())} are unstable together (spectral radius up to "
            f"{fig(radius.max())}). The paper computes no gain, and its temperature loop is not "
            f"stable alone. Where (1 - a)(1 - b) exceeds the product across, {wrong} are unstable."
        ),
        corrected="The coupling is stable if (1 - a)(1 - b) exceeds the product of cross gains.",
        repaired=bool(condition.any()) and wrong == 0,
        unstable_share=unstable.mean(),
        largest_radius=radius.max(),
    )


def corollary(context: Context, law: LawOf = as_served) -> Judgement:
    """Start below the set-point, and see where the printed law and the corrected one end."""
    cases = draw_cases(context, 307, PATHS)
    cases["side"] = np.full(PATHS, "cold")
    ends = [endings(each, cases, STEPS) for each in (law(0.1), EntropyFeedback())]
    low, ours = (stuck(each) & (each[0] > 0.0) for each in ends)
    collapsed, saved = float(low.mean()), float(ours.mean())
    h, target = ends[0][4:]
    left = float(np.median((h / target)[low])) if low.any() else 1.0
    return ruled(
        holds=collapsed < 0.01,
        because=(
            f"Started colder than a reachable set-point, the printed law ends on T_min with H off "
            f"H* in {pct(collapsed)} of {PATHS} draws, at {pct(left)} of H* in the median: the "
            f"deterministic state it was to exclude is in the invariant set. The corrected law "
            f"ends there in {pct(saved)}. That H stays finite is ln n."
        ),
        corrected="With the minus sign and gain below 2/N_n, a reachable H* is approached.",
        repaired=saved < 0.01,
        collapsed_share=collapsed,
        median_share_of_target=left,
        corrected_collapsed_share=saved,
    )


OWN: tuple[Claim, ...] = (
    Claim(
        key="bounded-entropy",
        section="7.1 (1)",
        says="Token entropy lies in [0, H_max], H_max finite.",
        judge=bounded_entropy,
        command="entropic claims --only bounded-entropy",
    ),
    Claim(
        key="thm-1",
        section="7.4",
        says="Theorem 1: with eta L < 1 an invariant set keeps H, T and resources bounded.",
        judge=theorem_1,
        command="entropic claims --only thm-1",
        flaws=("F36",),
    ),
    Claim(
        key="small-gain",
        section="7.4",
        says="Each component is stable; by small-gain arguments their coupling is.",
        judge=small_gain,
        command="entropic claims --only small-gain",
        flaws=("F36",),
    ),
    Claim(
        key="corollary",
        section="7.4",
        says="Corollary: neither infinite uncertainty nor collapse to deterministic states.",
        judge=corollary,
        command="entropic claims --only corollary",
        flaws=("F36",),
    ),
)
CLAIMS: tuple[Claim, ...] = (
    *contraction.CLAIMS,
    *service.CLAIMS,
    *OWN,
    *robustness.CLAIMS,
    *remarks.CLAIMS,
)
