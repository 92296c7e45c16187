"""Sections 1, 2 and 7.4: efficiency as tau per cost, and low entropy as work that is done."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from controllers.clock import tau_nats
from reports.claims.claim import Claim, Judgement
from reports.claims.clock import entropies
from reports.claims.context import Context
from reports.claims.ruling import fig, pct, ruled, untestable
from reports.statistics import interval

SHORTEST = 24  # tokens of a request that can show a trend
SEEMS_DONE_NATS, OPEN_NATS, WINDOW = 0.1, 1.0, 16
COLD, HOT = 0.5, 1.5  # of a temperature that alternates


def resolved(context: Context, paths: Sequence[np.ndarray] | None = None) -> Judgement:
    """Look what comes after a token that seems resolved, and whether outputs become certain."""
    paths = entropies(context) if paths is None else paths
    seems, again = [], []
    for h in paths:
        for t in range(len(h) - WINDOW):
            seems.append(h[t] < SEEMS_DONE_NATS)
            again.append(h[t + 1 : t + 1 + WINDOW].max() > OPEN_NATS)
    low_now, reopened = np.array(seems), np.array(again)
    back, otherwise = (
        float(reopened[kind].mean()) if kind.any() else 0.0 for kind in (low_now, ~low_now)
    )
    low = float(np.concatenate([h < SEEMS_DONE_NATS for h in paths]).mean())
    return ruled(
        holds=back < 0.05,
        because=(
            f"After a token with H < {SEEMS_DONE_NATS:g} nat, H passes {OPEN_NATS:g} nat again "
            f"within {WINDOW} tokens in {pct(back)} of {low_now.sum():,} cases, after other tokens "
            f"in {pct(otherwise)}: low entropy is no end. And those tokens, {pct(low)} of all, "
            f"are output that the user still needs."
        ),
        reopened_share=back,
        low_entropy_share=low,
    )


def toward_resolution(context: Context, paths: Sequence[np.ndarray] | None = None) -> Judgement:
    """Compare the mean entropy of the first and the last third of long requests."""
    paths = entropies(context) if paths is None else paths
    falls = [
        float(h[: len(h) // 3].mean() - h[-(len(h) // 3) :].mean())
        for h in paths
        if len(h) >= SHORTEST
    ]
    found = interval(falls)
    if found is None or found.half is None:
        return untestable(f"Fewer than two recorded requests have {SHORTEST} tokens.")
    half = found.half
    return ruled(
        holds=found.mean - half > 0.0,
        because=(
            f"From the first to the last third of {len(falls)} recorded requests mean H falls by "
            f"{found.mean:.2f} ± {half:.2f} nat (negative: it rises). "
            f"{pct(float(np.mean(np.array(falls) > 0)))} of requests fall."
        ),
        fall_nats=found.mean,
        half_width_nats=half,
    )


def units(context: Context, *, same: bool = False) -> Judgement:
    """Rank recorded requests by tau/C with C in tokens and in KV tokens read, then in seconds.

    ``same`` makes the two costs one, for a test of the judge.
    """
    requests = [r for r in context.trace.requests if r.output_tokens >= 2]
    tau = np.array([float(tau_nats(context.trace.of(r.request)["h_cal"])) for r in requests])
    prompt = np.array([float(r.prompt_tokens) for r in requests])
    out = np.array([float(r.output_tokens) for r in requests])
    read = out * prompt + out * (out + 1.0) / 2.0
    law = context.scenario.profile.law
    seconds = out * law.per_decode_s + read * law.per_kv_token_s
    swapped = _swapped(tau / out, tau / (out if same else read))
    above = (out[:, None] > out) & (read[:, None] > read)
    sane = bool((seconds[:, None] > seconds)[above].all())
    return ruled(
        holds=swapped < 0.05,
        because=(
            f"C is FLOPs, bytes or footprint, as one likes. Ranked by tau per token computed or "
            f"by tau per KV token read, {pct(swapped)} of the pairs of {len(tau)} recorded "
            f"requests change order. In modelled seconds, what costs more of both always costs "
            f"more."
        ),
        corrected="Take C as modelled seconds of a step, in which compute and reads add up.",
        repaired=sane,
        swapped_share=swapped,
    )


def _swapped(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of pairs that ``a`` and ``b`` order differently."""
    above = np.triu(np.ones((len(a), len(a)), dtype=bool), 1)
    differ = np.sign(a[:, None] - a) != np.sign(b[:, None] - b)
    return float(differ[above].mean())


def objective(context: Context, cold: float = COLD, hot: float = HOT) -> Judgement:
    """Let T alternate on recorded logits, beside the fixed T of equal mean entropy."""
    curves = context.model.curves
    starts = [(a, b) for a, b in context.model.slices.tolist() if b - a >= 2]
    rows = np.concatenate([np.arange(a, b) for a, b in starts])
    turn = np.concatenate([np.arange(b - a) % 2 for a, b in starts])
    swinging = curves.outcome(rows, np.log(np.where(turn == 1, hot, cold)))
    low, high = math.log(min(cold, hot)), math.log(max(cold, hot))
    for _ in range(40):
        middle = 0.5 * (low + high)
        colder = curves.outcome(rows, np.full(len(rows), middle))[0].mean() < swinging[0].mean()
        low, high = (middle, high) if colder else (low, middle)
    steady = curves.outcome(rows, np.full(len(rows), low))
    edges = np.cumsum([b - a for a, b in starts])[:-1]
    both = [sum(float(tau_nats(h)) for h in np.split(run[0], edges)) for run in (swinging, steady)]
    gain, loss = both[0] / both[1] - 1.0, float(swinging[2].mean() - steady[2].mean())
    return ruled(
        holds=gain < 0.05,
        because=(
            f"A temperature that alternates between {cold:g} and {hot:g} changes tau, at the same "
            f"tokens, cost and mean H as a fixed T = {fig(math.exp(low))}, by {100 * gain:+.3g} %, "
            f"and the expected NLL by {loss:+.2f} nat a token. What maximises tau/C need not "
            f"help."
        ),
        tau_gain=gain,
        nll_change_nats=loss,
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="tau-objective",
        section="1, 2",
        says="Optimal inference maximises d tau/dC.",
        judge=objective,
        command="entropic claims --only tau-objective",
        flaws=("F2",),
    ),
    Claim(
        key="cost-units",
        section="2",
        says="d tau/dC, C compute, bandwidth or KV footprint, ranks efficiency.",
        judge=units,
        command="entropic claims --only cost-units",
        flaws=("F4",),
    ),
    Claim(
        key="low-entropy-resolved",
        section="1, 3.1",
        says="A sequence of low entropy is resolved and needs little more computation.",
        judge=resolved,
        command="entropic claims --only low-entropy-resolved",
        flaws=("F3",),
    ),
    Claim(
        key="toward-resolution",
        section="7.4",
        says="Inference proceeds toward resolution: entropy falls along an output.",
        judge=toward_resolution,
        command="entropic claims --only toward-resolution",
    ),
)
