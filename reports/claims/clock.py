"""Sections 1 and 2: entropic time as a clock of irreversible progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from controllers.clock import drawdown_nats, net_nats, tau_nats
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.ruling import fig, pct, ruled

NEGLIGIBLE_NATS = 0.05
USABLE = 0.9  # of requests: a clock must still run in their second half

Chain = tuple[np.ndarray, np.ndarray]  # p(x_1) [n], p(x_2 | x_1) [n, n]
# Two independent tokens: one certain, one fair; and the other way round. Knowing one says nothing.
INDEPENDENT: tuple[Chain, ...] = (
    (np.array([0.5, 0.5]), np.array([[1.0, 0.0], [1.0, 0.0]])),
    (np.array([1.0, 0.0]), np.array([[0.5, 0.5], [0.5, 0.5]])),
)


def irreversible(context: Context, paths: Sequence[np.ndarray] | None = None) -> Judgement:
    """Ask how much of tau is undone later, and whether noise alone would run it as fast."""
    rng = context.rng(401)
    paths = entropies(context) if paths is None else paths
    tau, net = (sum(float(f(h)) for h in paths) for f in (tau_nats, net_nats))
    shuffled = sum(float(tau_nats(rng.permutation(h))) for h in paths)
    undone = (tau - net) / tau
    first = float(np.mean([h[0] for h in paths]))
    per_request = tau / len(paths)
    late = float(np.mean([_still_runs(h) for h in paths]))
    bounded = all(float(drawdown_nats(h)) <= h[0] + 1e-9 for h in paths)
    return ruled(
        holds=undone < 0.05,
        because=(
            f"Later rises undo {pct(undone)} of tau. It comes to {fig(per_request)} nats a "
            f"request, though H starts at {fig(first)}; with the same tokens in random order it "
            f"would be {fig(shuffled / tau)} times that. What is never undone, H_0 - min H, is at "
            f"most H_0 and still moves in the second half of only {pct(late)} of requests."
        ),
        corrected="H_0 - min H, which no later step undoes, clocks irreversible progress.",
        repaired=bounded and late > USABLE,
        undone_share=undone,
        tau_per_request_nats=per_request,
        shuffled_ratio=shuffled / tau,
        drawdown_late_share=late,
    )


def _still_runs(h: np.ndarray) -> float:
    """Return whether the lowest entropy comes in the second half."""
    return float(np.argmin(h) > len(h) // 2)


def information(context: Context, chains: Sequence[Chain] = INDEPENDENT) -> Judgement:
    """Compare the expected fall of entropy with the mutual information of the two tokens."""
    falls, shared = [], []
    for first, following in chains:
        joint = first[:, None] * following
        second = joint.sum(axis=0)
        drop = _h(first) - np.array([_h(row) for row in following])
        falls.append(float(first @ np.maximum(drop, 0.0)))
        shared.append(_h(first) + _h(second) - _h(joint.ravel()))
    off = float(np.abs(np.array(falls) - shared).max())
    paths = entropies(context)
    recorded = sum(float(tau_nats(h)) for h in paths) / sum(len(h) for h in paths)
    return ruled(
        holds=off < 1e-9,
        because=(
            f"dH compares two variables, the next token now and the one after. For two tokens "
            f"that are independent, dH+ comes to {fig(max(falls))} nat where their mutual "
            f"information is {fig(shared[int(np.argmax(falls))])}. It is an entropy drop, no "
            f"information gained; recorded tokens show {fig(recorded)} nat of it each."
        ),
        largest_difference_nats=off,
        recorded_drop_nats=recorded,
    )


def _h(p: np.ndarray) -> float:
    kept = p[p > 0.0]
    return float(-(kept * np.log(kept)).sum()) + 0.0


def token_count(context: Context, paths: Sequence[np.ndarray] | None = None) -> Judgement:
    """Regress tau on the number of tokens, over recorded requests."""
    paths = entropies(context) if paths is None else paths
    tokens = np.array([len(h) for h in paths], np.float64)
    tau = np.array([float(tau_nats(h)) for h in paths])
    explained = float(np.corrcoef(tokens, tau)[0, 1] ** 2)
    power = float(np.polyfit(np.log(tokens), np.log(tau), 1)[0])
    rng = context.rng(402)
    noise = np.maximum(-np.diff(rng.normal(size=20_000)), 0.0).mean()
    return ruled(
        holds=explained < 0.1,
        because=(
            f"Over {len(paths)} recorded requests the number of tokens explains {pct(explained)} "
            f"of the variance of tau, which grows as its power {fig(power)}. Entropy that is "
            f"independent noise of deviation s gains {fig(noise)} s a token; s/sqrt(pi) is "
            f"{fig(1 / math.sqrt(math.pi))} s."
        ),
        explained_share=explained,
        power=power,
    )


def negligible(context: Context) -> Judgement:
    """Count tokens that add next to nothing to tau."""
    drops = np.concatenate([np.maximum(-np.diff(h), 0.0) for h in entropies(context)])
    small = float((drops < NEGLIGIBLE_NATS).mean())
    rising = float((drops == 0.0).mean())
    return ruled(
        holds=small >= 0.25,
        because=(
            f"{pct(small)} of {len(drops):,} recorded tokens add less than {NEGLIGIBLE_NATS:g} "
            f"nat, most because H rises, {pct(rising)} of all. Any sequence that does not fall for "
            f"ever has such a share."
        ),
        negligible_share=small,
        rising_share=rising,
    )


def entropies(context: Context) -> list[np.ndarray]:
    """Return H at T_cal of each recorded request with two tokens or more."""
    h = context.model.h_cal
    return [h[a:b] for a, b in context.model.slices.tolist() if b - a >= 2]


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="tau-irreversible",
        section="2",
        says="tau, the sum of entropy falls, measures irreversible progress.",
        judge=irreversible,
        command="entropic claims --only tau-irreversible",
        flaws=("F2",),
    ),
    Claim(
        key="tau-information",
        section="1, 2",
        says="A fall dH_t > 0 is uncertainty resolved: information gained.",
        judge=information,
        command="entropic claims --only tau-information",
        flaws=("F1",),
    ),
    Claim(
        key="tau-token-count",
        section="2",
        says="tau is independent of the number of token steps executed.",
        judge=token_count,
        command="entropic claims --only tau-token-count",
        flaws=("F2",),
    ),
    Claim(
        key="tau-negligible",
        section="1, 2",
        says="Many token steps contribute negligibly to tau.",
        judge=negligible,
        command="entropic claims --only tau-negligible",
    ),
)
