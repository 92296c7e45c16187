"""Section 3.2: what the printed block score and threshold keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from controllers.scores import page_mass, page_surprisal
from controllers.selection import CoverageSelection, Pins, ThresholdSelection
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.evidence import share
from traces.schema import COVERAGES, SCORERS

Float64 = NDArray[np.float64]
Score = Callable[[Float64, Float64, Float64, int], Float64]  # weights, values, surprisal, page

COVERAGE = 0.95
PAGE, PAGES, WIDTH = 16, 64, 8
DRAWS = 200
SINK_MASS = 0.4  # of attention on the first token
UNIT = 0.1  # the same vectors in a unit ten times as large
SHARPNESS = 2.0  # standard deviation of attention logits
TYPICAL_NATS = 2.0  # scale of token surprisal
SHORT_PAGES, LONG_PAGES = 16, 4096
PROTECTED = 0.5  # mass that a rule must keep to be called safe


def density_score(weights: Float64, values: Float64, surprisal: Float64, page: int) -> Float64:
    """Return sum a_i (-ln f(v_i)), f the normal density fitted to the values: I_b taken at word."""
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    log_f = -0.5 * (z**2).sum(axis=1) - np.log(values.std(axis=0)).sum()
    log_f -= 0.5 * values.shape[1] * np.log(2.0 * np.pi)
    return page_mass(weights * -log_f, page)


def mass_score(weights: Float64, values: Float64, surprisal: Float64, page: int) -> Float64:
    """Return sum a_i."""
    return page_mass(weights, page)


def surprisal_score(weights: Float64, values: Float64, surprisal: Float64, page: int) -> Float64:
    """Return sum a_i s_i, s_i the surprisal of the token; the first has none."""
    return page_surprisal(weights, surprisal, np.arange(len(weights)) > 0, page)


def order(context: Context) -> Judgement:
    """Is attention restricted, when its weights choose the restriction?"""
    column, kept = COVERAGES.tolist().index(COVERAGE), context.trace.columns["kept_mean"]
    truth, guess = (float(kept[:, SCORERS.index(n), column].mean()) for n in ("oracle", "mean_std"))
    missed = float(context.trace.columns["dropped"][:, SCORERS.index("mean_std"), column].mean())
    exact = 0.5 + 0.5 * truth  # every key, then the values kept
    estimated = guess + 1.0 / context.model.page_tokens
    because = (
        f"a_i exists only after every key was read: with exact weights at coverage {COVERAGE} a "
        f"step reads {share(exact)} of the KV bytes and all attention logits, with weights "
        f"estimated from page statistics {share(estimated)}, dropping {share(missed)} of the mass"
    )
    numbers = {"exact_bytes": exact, "estimated_bytes": estimated, "missed_mass": missed}
    if exact <= estimated:
        ruling = Ruling.HOLDS if exact < 1.0 else Ruling.REFUTED
        return Judgement(ruling=ruling, because=because + ".", numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because + ".",
        numbers=numbers,
        corrected="Choose pages by an estimate of their mass, and pay for the estimate.",
    )


def surprisal(context: Context, score: Score = density_score) -> Judgement:
    """Does the score depend on the unit the value vectors are written in?"""
    rng, changed, mended, negative = context.rng(20), 0, 0, 0
    for _ in range(DRAWS):
        weights, values, tokens = _attention(rng)
        same = [score(weights, unit * values, tokens, PAGE) for unit in (1.0, UNIT)]
        fixed = [mass_score(weights, unit * values, tokens, PAGE) for unit in (1.0, UNIT)]
        changed += bool((_top(same[0]) != _top(same[1])).any())
        mended += bool((_top(fixed[0]) != _top(fixed[1])).any())
        negative += bool((same[1] < 0.0).any())
    because = (
        f"v_i is a vector, so p(v_i) can only be a density. Writing the same vectors in another "
        f"unit changes which quarter of the pages ranks highest in {changed} of {DRAWS} draws, "
        f"and gives negative information in {negative}; by attention mass in {mended}."
    )
    numbers = {"changed_share": changed / DRAWS, "negative_share": negative / DRAWS}
    if changed == 0:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED if mended == 0 else Ruling.REFUTED,
        because=because,
        numbers=numbers,
        corrected="Score by mass, by token surprisal when written, or by (a_i + eps)||W_o v_i||.",
    )


def redundant(context: Context, score: Score = surprisal_score) -> Judgement:
    """Are the blocks with low I_b the ones attention can lose?"""
    rng, lost_sink, error, ours = context.rng(21), 0, [], []
    pins, rule = Pins(), CoverageSelection(coverage=0.5)
    for _ in range(DRAWS):
        weights, values, tokens = _attention(rng, sink=SINK_MASS)
        mass = page_mass(weights, PAGE)
        careful = rule.keep(mass, pins)
        scores = score(weights, values, tokens, PAGE)
        theta = float(np.sort(scores)[-int(careful.sum())])  # as many pages
        printed = ThresholdSelection(theta=max(theta, 0.0)).keep(np.maximum(scores, 0.0), pins)
        lost_sink += not printed[0]
        error.append(_moved(weights, values, printed))
        ours.append(_moved(weights, values, careful))
    worse, better = float(np.mean(error)), float(np.mean(ours))
    because = (
        f"With {share(SINK_MASS)} of attention on a first token without surprisal, the printed "
        f"rule drops its page in {lost_sink} of {DRAWS} draws and moves the output by {worse:.2g} "
        f"of its spread; mass with pinned ends, as many pages, by {better:.2g}."
    )
    numbers = {"sink_lost_share": lost_sink / DRAWS, "printed_error": worse, "our_error": better}
    if worse <= better * 1.05:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    return Judgement(
        ruling=Ruling.CORRECTED,
        because=because,
        numbers=numbers,
        corrected="Pin the first and the last pages and rank the rest by mass.",
    )


def threshold(context: Context, theta_of: Callable[[int], float] | None = None) -> Judgement:
    """Can one theta serve short and long contexts?"""
    pins, covered = Pins(), CoverageSelection(coverage=COVERAGE)
    theta_of = theta_of or (lambda _: 0.5 / SHORT_PAGES)  # set at the short context
    found: dict[str, list[float]] = {"printed": [], "covered": []}
    for pages in (SHORT_PAGES, LONG_PAGES):
        mass = page_mass(np.full(pages * PAGE, 1.0 / (pages * PAGE)), PAGE)
        rules = {"printed": ThresholdSelection(theta=theta_of(pages)), "covered": covered}
        for name, rule in rules.items():
            kept = rule.keep(mass, pins)
            found[name].append(float(mass[kept].sum()))
    because = (
        f"Flat attention, one theta for all lengths: the mass kept falls from "
        f"{share(found['printed'][0])} at {SHORT_PAGES} pages to {share(found['printed'][1])} at "
        f"{LONG_PAGES}, because I_b shrinks as blocks multiply; a coverage of {COVERAGE} keeps "
        f"{share(found['covered'][0])} and {share(found['covered'][1])}."
    )
    numbers = {"short": found["printed"][0], "long": found["printed"][1]}
    if min(found["printed"]) >= PROTECTED:
        return Judgement(ruling=Ruling.HOLDS, because=because, numbers=numbers)
    safe = min(found["covered"]) >= COVERAGE - 1e-9
    return Judgement(
        ruling=Ruling.CORRECTED if safe else Ruling.REFUTED,
        because=because,
        numbers=numbers,
        corrected="Keep the smallest set of blocks whose share of the mass reaches p.",
    )


def _attention(
    rng: np.random.Generator, sink: float | None = None
) -> tuple[Float64, Float64, Float64]:
    """Draw weights ``[n]``, values ``[n, WIDTH]`` and surprisals ``[n]``, nats."""
    n = PAGE * PAGES
    z = rng.normal(0.0, SHARPNESS, n)
    weights = np.exp(z) / np.exp(z).sum()
    if sink is not None:
        weights *= (1.0 - sink) / weights[1:].sum()
        weights[0] = sink
    return weights, rng.normal(size=(n, WIDTH)), rng.exponential(TYPICAL_NATS, n)


def _top(scores: Float64) -> NDArray[np.bool_]:
    """Return which pages are in the best quarter."""
    return np.argsort(np.argsort(-scores, kind="stable"), kind="stable") < len(scores) // 4


def _moved(weights: Float64, values: Float64, kept: NDArray[np.bool_]) -> float:
    sparse = np.where(np.repeat(kept, PAGE), weights, 0.0)
    spread = np.sqrt(values.var(axis=0).sum())
    output = (sparse / sparse.sum()) @ values
    return float(np.linalg.norm(weights @ values - output) / spread)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="block-order",
        section="3.2",
        says="Attention is restricted to blocks chosen by their attention weights.",
        judge=order,
        command="entropic claims --only block-order",
        flaws=("F19",),
    ),
    Claim(
        key="block-surprisal",
        section="3.2",
        says="-log p(v_i) measures the information in a value vector.",
        judge=surprisal,
        command="entropic claims --only block-surprisal",
        flaws=("F20",),
    ),
    Claim(
        key="block-redundant",
        section="3.2",
        says="Blocks with low I_b are informationally redundant.",
        judge=redundant,
        command="pytest tests/laws/test_selection.py",
        flaws=("F21",),
    ),
    Claim(
        key="block-threshold",
        section="3.2",
        says="Blocks are kept where I_b reaches a threshold theta_t.",
        judge=threshold,
        command="pytest tests/laws/test_selection.py",
        flaws=("F22",),
    ),
)
