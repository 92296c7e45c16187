"""Section 8 and the text itself: does it compose unmodified, does it deliver what it announces?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controllers.core import TemperatureLaw, TokenSignal
from controllers.temperature import EntropyFeedback
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.evidence import share
from reports.claims.printed import CITATIONS, HEADINGS, LEFT_OVER, PROMISED, Citation
from reports.verify.coverage_runs import token_signal

Float64 = NDArray[np.float64]

LANES, TOKENS, DRAFTED, REJECTED = 256, 16, 4, 2
OUTCOMES = 64
TARGET_NATS = 2.0
EXPERTS, CHOSEN, FEWER = 8, 2, 1  # of a typical mixture; where entropy asks for fewer
BATCH = 16
FEEDBACK = EntropyFeedback()


def speculative(context: Context, law: TemperatureLaw = FEEDBACK) -> Judgement:
    """Does speculative decoding keep the output law and the temperature, unmodified?"""
    rng = context.rng(44)
    logits = rng.normal(0.0, 2.0, (LANES, TOKENS, OUTCOMES))
    drafted = rng.normal(0.0, 2.0, (LANES, DRAFTED, OUTCOMES))
    truth, state = _run(law, logits)
    kept, _ = _run(law, drafted[:, : DRAFTED - REJECTED], state)
    _, accepted = _run(law, drafted[:, : DRAFTED - REJECTED], state)
    _, polluted = _run(law, drafted, state)
    after = rng.normal(0.0, 2.0, (LANES, 1, OUTCOMES))
    right, wrong = (_run(law, after, s)[0][:, 0] for s in (accepted, polluted))
    drift = float(np.abs(np.exp(right) - np.exp(wrong)).max())
    shifted = float(_output_error(drafted[:, 0], logits[:, 0], truth[:, -1], kept[:, -1]).max())
    same = float(_output_error(drafted[:, 0], logits[:, 0], truth[:, -1], truth[:, -1]).max())
    because = (
        f"{LANES} lanes, {REJECTED} of {DRAFTED} drafts rejected: without rollback T is off by up "
        f"to {drift:.2g}; with T moved between acceptance and residual the sampled law is off by "
        f"up to {shifted:.2g} in total variation, with one T by {same:.1g}."
    )
    numbers = {"temperature_error": drift, "law_error": shifted, "law_error_same": same}
    if max(drift, shifted) < 1e-9:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    if same > 1e-9:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="Snapshot the law, restore it at the first rejection, hold T over a round.",
    )


def experts(context: Context, batch: int = BATCH) -> Judgement:
    """Does activating fewer experts on sure tokens save weight traffic in a batch?"""
    dense, sparse = (_union(batch, CHOSEN, mixed) for mixed in (CHOSEN, FEWER))
    compute = 1.0 - (CHOSEN + FEWER) / 2.0 / CHOSEN
    saved = 1.0 - sparse / dense
    because = (
        f"{EXPERTS} experts, {CHOSEN} per token, {FEWER} on the sure half: {share(compute)} less "
        f"expert compute, but a batch of {batch} loads the union of its experts, {dense:.3g} "
        f"before and {sparse:.3g} after: {share(saved)} less traffic (routing uniform)."
    )
    numbers = {"compute_saved": compute, "traffic_saved": saved}
    ruling = Ruling.HOLDS if saved >= 0.5 * compute else Ruling.REFUTED
    return Judgement(ruling=ruling, because=because, numbers=numbers)


def references(
    context: Context,
    citations: Sequence[Citation] = CITATIONS,
    headings: Sequence[str] = HEADINGS,
) -> Judgement:
    """Do the references name what they cite, and is the text addressed to readers?"""
    wrong = [one for one in citations if one.printed != one.actual]
    stray = [h for h in headings if any(word in h.lower() for word in LEFT_OVER)]
    numbers = {"checked": float(len(citations)), "wrong": float(len(wrong))}
    listed = ", ".join(f"{one.entry} prints {one.printed}" for one in wrong) or "none"
    because = f"Of {len(citations)} arXiv numbers, not the work named: {listed}."
    because += f" Left in the text: {', '.join(map(repr, stray))}." if stray else ""
    if not wrong:
        ruling = Ruling.REFUTED if stray else Ruling.HOLDS
        return Judgement(ruling=ruling, because=because, numbers=numbers)
    fixed = ", ".join(f"{one.entry} is arXiv:{one.actual}" for one in wrong)
    return Judgement(
        ruling=Ruling.CORRECTED, because=because, numbers=numbers, corrected=f"{fixed}."
    )


def delivered(context: Context, headings: Sequence[str] = HEADINGS) -> Judgement:
    """Are the announced pseudocode and integration plan in the paper?"""
    found = [h for h in headings if any(word in h.lower() for word in PROMISED)]
    because = (
        f"Of {len(headings)} headings {len(found)} announce pseudocode, an algorithm or an "
        "integration; no listing is numbered, and no code is linked."
        if not found
        else f"Found under {', '.join(map(repr, found))}."
    )
    ruling = Ruling.HOLDS if found else Ruling.REFUTED
    return Judgement(ruling=ruling, because=because, numbers={"found": float(len(found))})


def _run(law: TemperatureLaw, logits: Float64, state: object = None) -> tuple[Float64, object]:
    """Run ``law`` over logits ``[B, t, n]``; return ln T per token ``[B, t]`` and the state."""
    lanes = len(logits)
    commands = []
    for t in range(logits.shape[1]):
        signal = token_signal(lanes, target_nats=TARGET_NATS, position=t)
        state = law.init(signal) if state is None else state
        state, command = law.update(state, _measured(signal, law, state, logits[:, t]))
        commands.append(np.asarray(command, np.float64))
    return np.stack(commands, axis=1), state


def _measured(
    signal: TokenSignal, law: TemperatureLaw, state: object, logits: Float64
) -> TokenSignal:
    p = _softmax(logits, np.asarray(law.x_in(state), np.float64))
    log_p = np.log(np.maximum(p, 1e-300))
    h = -(p * log_p).sum(axis=1)
    v = (p * (log_p + h[:, None]) ** 2).sum(axis=1)
    return signal._replace(h_in=h.astype(np.float32), v_in=v.astype(np.float32))


def _softmax(logits: Float64, x: Float64) -> Float64:
    z = logits / np.exp(x)[:, None]
    z = np.exp(z - z.max(axis=1, keepdims=True))
    return z / z.sum(axis=1, keepdims=True)


def _output_error(draft: Float64, target: Float64, x: Float64, x_residual: Float64) -> Float64:
    """Return the total variation between target and sampled law of one speculative step, ``[B]``.

    Drafts are accepted against the target at ln T ``x``; what is rejected is drawn from the
    residual of the target at ``x_residual``.
    """
    q, p, late = _softmax(draft, x), _softmax(target, x), _softmax(target, x_residual)
    taken = np.minimum(q, p)
    residual = np.maximum(late - q, 0.0)
    residual /= residual.sum(axis=1, keepdims=True)
    sampled = taken + (1.0 - taken.sum(axis=1, keepdims=True)) * residual
    return 0.5 * np.abs(sampled - p).sum(axis=1)


def _union(batch: int, chosen: int, sure: int) -> float:
    """Return the expected experts a batch loads, half of it choosing ``sure``."""
    unsure_tokens = batch - batch // 2
    left = (1.0 - chosen / EXPERTS) ** unsure_tokens * (1.0 - sure / EXPERTS) ** (batch // 2)
    return EXPERTS * (1.0 - left)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="compose-speculative",
        section="8.1",
        says="Speculative decoding composes with entropy control without modification.",
        judge=speculative,
        command="entropic claims --only compose-speculative",
        flaws=("F44",),
    ),
    Claim(
        key="compose-experts",
        section="8.2",
        says="Entropy-conditioned experts make mixtures cheaper.",
        judge=experts,
        command="entropic claims --only compose-experts",
        flaws=("F44",),
    ),
    Claim(
        key="references",
        section="References",
        says="The references are those cited, and the text is final.",
        judge=references,
        command="entropic claims --only references",
        flaws=("F45",),
    ),
    Claim(
        key="abstract",
        section="Abstract",
        says="Pseudocode and an integration plan are presented.",
        judge=delivered,
        command="entropic claims --only abstract",
    ),
)
