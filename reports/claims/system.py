"""Sections 3.4, 4 and 5.2: is there a loop, does it settle, does it climb anything?"""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.coverage import EntropyCoverage
from controllers.presets import get_preset
from controllers.serving.ledger import Ledger
from controllers.temperature import X_MAX, X_MIN, FixedTemperature
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.decode_row import row_seconds
from reports.claims.evidence import beyond, broken, correlation, share, text
from reports.claims.serve import ATTENTION, BASELINE, FULL, SCHEDULING, SRPT, change_pct
from reports.studies.variance import run_law
from reports.verify.coupling import FiniteStep, run
from reports.verify.coverage_runs import token_signal
from reports.verify.draw import draw

CASES = 300
LAST = 32  # tokens of a run in which it has settled, if it does
AS_PRINTED, CORRECTED = get_preset("seed"), get_preset("full")
COVERAGE = EntropyCoverage()
HOT = 1.8  # the hottest recorded T
OVERCONFIDENT = 0.7  # logits divided by this are sharper than the model's own


def fixed_points(
    context: Context, printed: Any = AS_PRINTED, repaired: Any = CORRECTED
) -> Judgement:
    """Are perturbations of the coupled loop damped?"""
    prop = FiniteStep()
    bad, mended = (
        float(broken(prop, law, context.rng(36), CASES).mean()) for law in (printed, repaired)
    )
    on_rail, ours = (_railed(context, law) for law in (printed, repaired))
    because = (
        f"{CASES} random runs on recorded tokens: the printed laws hold T on a clip in "
        f"{share(on_rail)} of the last {LAST} tokens, away from the target, the corrected ones in "
        f"{share(ours)}. Of as many pairs of runs, one of each disturbed for 8 steps, "
        f"{share(bad)} end further apart than they were early on"
    )
    numbers = {
        "parted_share": bad,
        "repaired_parted_share": mended,
        "railed_share": on_rail,
        "repaired_railed_share": ours,
    }
    if bad == 0.0 and on_rail < 0.5:
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    because += f", corrected {share(mended)}."
    if mended > 0.0 or ours >= 0.5:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    proof = prop.certificate(repaired)
    rate = "" if proof is None else f" {proof.statement}."
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because + rate,
        numbers=numbers,
        corrected="With the minus sign and H read at T_cal the loops contract over windows.",
    )


def _railed(context: Context, preset: Any) -> float:
    """Return the share of late tokens of undisturbed runs with T on a clip."""
    cases = draw(FiniteStep().space(preset), context.rng(37), CASES)
    x = run(preset, cases).x[-LAST:, 0]
    return float((np.minimum(np.abs(x - X_MIN), np.abs(x - X_MAX)) < 1e-5).mean())


def loop(context: Context) -> Judgement:
    """Does the order of service feed back on entropy?"""
    base = context.crowded[BASELINE].first
    orders = {name: same_tokens(base, context.crowded[name].first) for name in (SCHEDULING, SRPT)}
    pruned = same_tokens(context.table[BASELINE].first, context.table[ATTENTION].first)
    moved = 1.0 - min(orders.values())
    because = (
        f"Under three orders of service {share(moved)} of tokens see another entropy, by "
        f"construction: a request's logits depend on its own tokens. Under pruning "
        f"{share(1.0 - pruned)} do. The live engine keeps the first to the token (see command)."
    )
    numbers = {"moved_by_order": moved, "moved_by_pruning": 1.0 - pruned}
    if moved > 0.0:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    if pruned == 1.0:
        return Judgement(ruling=Ruling.REFUTED, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="The loop is attention, logits, entropy; scheduling reads it and stands outside.",
    )


def gradient(context: Context) -> Judgement:
    """Does the loop climb d tau/dC?"""
    found = context.sequences
    live = found.live
    taus, nlls = [], []
    for x_user in (0.0, float(np.log(HOT))):
        x = run_law(context.model, found.rows, FixedTemperature(), 1.0, x_user)
        h, nll = np.zeros(x.shape), np.zeros(x.shape)
        h[live], _, nll[live] = context.model.curves.outcome(found.rows[live], x[live])
        drops = np.maximum(h[:, :-1] - h[:, 1:], 0.0) * live[:, 1:]
        taus.append(float(drops.sum()))
        nlls.append(float(nll[live].mean()))
    hot = 100.0 * (taus[1] / taus[0] - 1.0)
    full = change_pct(context.table, FULL, "tau_per_cost")
    because = (
        f"The corrected full system moves d tau/dC by {text(full, ' %')} against the baseline. "
        f"Turning T from 1 to {HOT} by hand, at no cost, moves tau by {hot:+.3g} % and NLL from "
        f"{nlls[0]:.3g} to {nlls[1]:.3g} nat per token"
    )
    numbers = {"hot_pct": hot, "full_pct": 0.0 if full is None else full.mean}
    if beyond(full, +1) and beyond(full, +1, hot):
        return Judgement(ruling=Ruling.HOLDS, because=because + ".", numbers=numbers)
    why = ": what it would climb is noise, and it does not climb it."
    return Judgement(ruling=Ruling.REFUTED, because=because + why, numbers=numbers)


def stress(context: Context, law: Any = COVERAGE) -> Judgement:
    """Section 6.2: does overconfidence prune more, and does calibration undo it?"""
    rows = np.arange(len(context.model.h_cal))
    kept = {}
    # Logits divided by s have at T the entropy of the model's own at s T.
    for name, s in {"own": 1.0, "sharp": OVERCONFIDENT, "flat": 1.0 / OVERCONFIDENT}.items():
        x = np.full(len(rows), float(np.log(context.model.t_cal * s)))
        kept[name] = float(_kept(context, law, context.model.curves.entropy(rows, x)[0]).mean())
    because = (
        f"Pages kept: {share(kept['own'])} on the model's own logits, {share(kept['sharp'])} on "
        f"logits sharpened by 1/{OVERCONFIDENT}, {share(kept['flat'])} on flattened ones. A T_cal "
        "fitted to scaled logits scales with them, so calibrated entropy is the same number again."
    )
    numbers = {f"kept_{name}": value for name, value in kept.items()}
    holds = kept["sharp"] < kept["own"] < kept["flat"]
    more = " The change of quality is not tested here."
    return Judgement(
        ruling=Ruling.HOLDS if holds else Ruling.REFUTED, because=because + more, numbers=numbers
    )


def scope(context: Context, score_share: float | None = None) -> Judgement:
    """Section 9: is pruning worth most where contexts are long?"""
    row = row_seconds(context, score_share)
    tokens = context.trace.columns["context"].astype(np.float64)
    rows = np.arange(len(tokens))
    kept = context.model.shares.share(rows, np.full(len(rows), 0.95))
    saved = (row.read * (1.0 - kept) - row.choose) / row.dense
    by_context = correlation(tokens, saved)
    ends = np.quantile(tokens, [0.1, 0.9])
    short, long = saved[tokens <= ends[0]].mean(), saved[tokens >= ends[1]].mean()
    because = (
        f"Share of a full batch's decode step saved at coverage .95, choosing paid: "
        f"{share(float(short))} on the shortest tenth of contexts, {share(float(long))} on the "
        f"longest; rank correlation with context {text(by_context)}."
    )
    ruling = Ruling.HOLDS if beyond(by_context, +1) else Ruling.REFUTED
    return Judgement(ruling=ruling, because=because, numbers={"short": short, "long": long})


def same_tokens(a: Ledger, b: Ledger) -> float:
    """Return the share of tokens, by request and position, with equal entropies and commands."""
    tables = []
    for ledger in (a, b):
        order = np.lexsort((ledger.tokens["position"], ledger.tokens["request_id"]))
        names = ("request_id", "position", "h_cal", "h_applied", "command")
        tables.append(np.stack([ledger.tokens[name][order] for name in names]))
    if tables[0].shape != tables[1].shape:
        return 0.0
    return float((tables[0] == tables[1]).all(axis=0).mean())


def _kept(context: Context, law: Any, h: np.ndarray) -> np.ndarray:
    """Return the share of pages kept on every row, each a fresh lane held at its entropy."""
    signal = token_signal(len(h), h_cal=h, h_in=h)
    state = law.init(signal)
    coverage = np.ones(len(h))
    for _ in range(64):
        state, coverage = law.update(state, signal)
    return context.model.shares.share(np.arange(len(h)), np.asarray(coverage, np.float64))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="fixed-points",
        section="4",
        says="Fixed points of the closed loop are locally stable: perturbations are damped.",
        judge=fixed_points,
        command="entropic verify seed",
        flaws=("F36",),
    ),
    Claim(
        key="closed-loop",
        section="3.4",
        says="Entropy, scheduling, attention and logits form one closed loop.",
        judge=loop,
        command=(
            "pytest tests/backend/test_engine.py"
            "::test_a_request_gets_the_same_tokens_alone_as_in_a_crowd"
        ),
        flaws=("F37",),
    ),
    Claim(
        key="gradient-ascent",
        section="4",
        says="The behaviour approximates gradient ascent on information efficiency.",
        judge=gradient,
        command="entropic claims --only gradient-ascent",
        flaws=("F38",),
    ),
    Claim(
        key="stress",
        section="6.2",
        says="Overconfidence prunes more; calibration restores the baseline.",
        judge=stress,
        command="entropic claims --only stress",
    ),
    Claim(
        key="scope",
        section="9",
        says="The method pays where attention and KV traffic dominate: at long contexts.",
        judge=scope,
        command="entropic claims --only scope",
    ),
)
