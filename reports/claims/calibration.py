"""Sections 5 and 6.2: which entropy is measured, what calibration does, what entropy can mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.calibration import fit_temperature
from controllers.core import State, TemperatureLaw, TokenSignal
from controllers.coverage import EntropyCoverage
from controllers.entropy import entropy_varentropy
from controllers.ops import Array
from controllers.temperature import EntropyFeedback
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context
from reports.claims.loops import draw_cases, endings, stuck
from reports.claims.ruling import fig, pct, ruled
from reports.verify.micro_loop import token_signal

LANES = 200
STEPS = 1_000
SHARPEN = 1.5  # factor on logits: overconfidence
HELD_OUT = 4_000
OUTCOMES = 512

Ensemble = tuple[np.ndarray, ...]  # predictive distributions of equally likely models, [n] each
# One fair coin agreed on by both models, and two certain models that disagree.
SAME_TOKEN_ENTROPY: tuple[Ensemble, ...] = (
    (np.array([0.5, 0.5]), np.array([0.5, 0.5])),
    (np.array([1.0, 0.0]), np.array([0.0, 1.0])),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadsCalibrated:
    """A temperature law that is fed H and V at T_cal in place of those at its own T."""

    law: TemperatureLaw

    def init(self, signal: TokenSignal) -> State:
        """Start the law."""
        return self.law.init(signal)

    def update(self, state: State, signal: TokenSignal) -> tuple[State, Array]:
        """Swap the measurements, then update the law."""
        swapped = signal._replace(h_in=signal.h_cal, v_in=signal.v_cal)
        return self.law.update(state, swapped)

    def x_in(self, state: State) -> Array:
        """Return the law's own."""
        return self.law.x_in(state)


def which_entropy(context: Context, law: TemperatureLaw | None = None) -> Judgement:
    """Close the corrected loop on H at T_cal = 1, which T does not move; then on H at T."""
    cases = draw_cases(context, 601, LANES)
    swapped = ReadsCalibrated(law=EntropyFeedback()) if law is None else law
    read_cal, read_own = (endings(each, cases, STEPS) for each in (swapped, EntropyFeedback()))
    railed, ours = (float(stuck(ends).mean()) for ends in (read_cal, read_own))
    return ruled(
        holds=railed < 0.05,
        because=(
            f"With H taken at T_cal, where T does not act on it, the corrected law is an "
            f"integrator without restoring force: after {STEPS:,} steps it sits on a clip in "
            f"{pct(railed)} of {LANES} draws with a reachable H*. With H taken at T_t, in "
            f"{pct(ours)}."
        ),
        corrected="Measure H at T_t for the temperature law, at T_cal for pruning and scheduling.",
        repaired=ours < 0.05,
        clip_share=railed,
        corrected_clip_share=ours,
    )


def overconfidence(context: Context, sharpen: float = SHARPEN) -> Judgement:
    """Sharpen logits, watch the coverage law, then fit T_cal on tokens held out."""
    rng = context.rng(602)
    logits = rng.normal(size=(HELD_OUT, OUTCOMES)) * rng.uniform(1.0, 4.0, (HELD_OUT, 1))
    gumbel = rng.gumbel(size=logits.shape)
    tokens = np.argmax(logits + gumbel, axis=1)  # drawn from softmax(logits)
    fitted = fit_temperature(lambda: [(sharpen * logits, tokens)])
    h = [
        entropy_varentropy(rows, x)[0]
        for rows, x in (
            (logits, 0.0),
            (sharpen * logits, 0.0),
            (sharpen * logits, math.log(fitted.t_cal)),
        )
    ]
    calm, sharp, mended = (float(_coverage(each).mean()) for each in h)
    return ruled(
        holds=sharp < calm and abs(mended - calm) < 0.2 * abs(sharp - calm),
        because=(
            f"Logits times {sharpen:g}: mean H falls from {fig(h[0].mean())} to "
            f"{fig(h[1].mean())} nat and the pages skipped rise from {pct(1 - calm)} to "
            f"{pct(1 - sharp)} of attention mass. T_cal = {fig(fitted.t_cal)}, fitted on "
            f"{HELD_OUT:,} tokens, brings the share back to {pct(1 - mended)}. Quality is not "
            f"judged here."
        ),
        t_cal=fitted.t_cal,
        skipped_before=1 - calm,
        skipped_sharpened=1 - sharp,
        skipped_calibrated=1 - mended,
    )


def _coverage(h: np.ndarray) -> np.ndarray:
    """Return the coverage law's steady command at constant entropies ``h``."""
    law = EntropyCoverage()
    signal = token_signal(len(h), h_cal=h)
    state = law.init(signal)
    command = h
    for _ in range(64):
        state, command = law.update(state, signal)
    return np.asarray(command, np.float64)


def calibrated_entropy(context: Context) -> Judgement:
    """Measure the entropy-calibration error before and after T_cal; live if committed."""
    document = context.results.get("estimators")
    if document is not None:
        fit = document["calibration"]
        before, after = (float(fit[f"entropy_error_{when}_nats"]) for when in ("before", "after"))
        source = f"{fit['held_out_tokens']:,} held-out tokens of {document['model']}"
    else:
        rng = context.rng(603)
        logits = 2.0 * rng.normal(size=(HELD_OUT, OUTCOMES))
        tokens = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
        fitted = fit_temperature(lambda: [(SHARPEN * logits, tokens)])
        before = fitted.before.entropy_calibration_error
        after = fitted.after.entropy_calibration_error
        source = f"{HELD_OUT:,} synthetic tokens, overconfident"
    return ruled(
        holds=abs(after) < 0.01 and abs(after) <= abs(before),
        because=(
            f"{source}: NLL less mean entropy is {before:+.3g} nat at T = 1 and {after:+.1g} at "
            f"T_cal. Zero at the optimum is an identity of temperature scaling on the tokens it "
            f"was fitted on; it says nothing of other data."
        ),
        error_before_nats=before,
        error_after_nats=after,
    )


def epistemic(context: Context, ensembles: Sequence[Ensemble] = SAME_TOKEN_ENTROPY) -> Judgement:
    """Split the entropy of ensembles into disagreement and chance; compare with token entropy."""
    del context  # exact, nothing drawn
    total = [_h(np.mean(members, axis=0)) for members in ensembles]
    chance = [float(np.mean([_h(p) for p in members])) for members in ensembles]
    doubt = [t - c for t, c in zip(total, chance, strict=True)]
    apart = max(total) - min(total)
    spread = max(doubt) - min(doubt)
    return ruled(
        holds=spread < 1e-9 or apart > 1e-9,
        because=(
            f"Two pairs of models with the same token entropy, {fig(total[0])} and "
            f"{fig(total[-1])} nat, owe {fig(doubt[0])} and {fig(doubt[-1])} nat of it to "
            f"disagreement between models. Token entropy is their sum and cannot tell them apart."
        ),
        total_nats=total[0],
        epistemic_least_nats=min(doubt),
        epistemic_most_nats=max(doubt),
    )


def _h(p: np.ndarray) -> float:
    kept = p[p > 0.0]
    return float(-(kept * np.log(kept)).sum()) + 0.0


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="which-entropy",
        section="2.1, 5",
        says="The control law may use entropy at the calibrated temperature.",
        judge=which_entropy,
        command="entropic claims --only which-entropy",
        flaws=("F7",),
    ),
    Claim(
        key="calibrated-entropy",
        section="5",
        says="A global T_cal fitted on held-out data corrects the entropy.",
        judge=calibrated_entropy,
        command="entropic estimators",
    ),
    Claim(
        key="overconfidence",
        section="6.2",
        says="Overconfidence makes pruning more aggressive; calibrated entropy undoes that.",
        judge=overconfidence,
        command="entropic claims --only overconfidence",
    ),
    Claim(
        key="epistemic",
        section="5",
        says="Predictive entropy is a proxy for epistemic and aleatoric uncertainty.",
        judge=epistemic,
        command="entropic claims --only epistemic",
        flaws=("F43",),
    ),
)
