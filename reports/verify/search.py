"""The adversary: random lanes, refinement of the worst, hypothesis; then a small counterexample.

Deterministic from the budget's seed and the property's name, in every process.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, target
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from reports.verify.draw import draw, everything, hash_text, near, stack_cases
from reports.verify.property import Case, Cases, Choice, Number, Property, Space, n_lanes
from reports.verify.setting import Budget
from reports.verify.shrink import shrink
from reports.verify.trial import Bench, Raised, Scores, Trial

MOST_LISTED = 100_000  # cases; a larger finite space is drawn from
AGAIN = "alone and again the case gives another value: coupled lanes, hidden state or chance"
SCALES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.003)  # of the refinement, in shares of a range


@runtime_checkable
class SelfSearching(Protocol):
    """A property that finds its own worst case, such as a list of operations.

    ``measure`` gets a list or an object whole, as the one element of a column of objects.
    """

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the worst case found, already small, and how many distinct cases were tried."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What the adversary found."""

    worst: Trial
    cases: int  # distinct
    exhaustive: bool = False  # these were all there are
    note: str = ""


class _Broken(Exception):
    """A case that violates, said to hypothesis."""


def search(prop: Property, law: Any, budget: Budget) -> Searched:
    """Look for the worst case of ``prop`` on ``law``; a violating one comes back small."""
    rng = np.random.default_rng([budget.seed, hash_text(prop.name)])
    bench = Bench.of(prop, law)
    if isinstance(prop, SelfSearching):
        return _hunted(prop, bench, rng, budget)
    space = prop.space(law)
    if not space:
        raise ValueError(f"{prop.name}: a space has at least one parameter")
    listed = everything(space, min(budget.lanes, MOST_LISTED))
    try:
        worst = _spread(bench, space, rng, budget, listed)
    except Raised as raised:
        worst = raised.trial
    if not worst.violates and listed is None and budget.examples:
        worst = _climb(bench, space, worst, budget)
    if worst.violates:
        worst = shrink(bench, space, worst)
    note = _repeats(bench, worst)
    return Searched(worst=worst, cases=bench.n_cases, exhaustive=listed is not None, note=note)


def _hunted(
    prop: SelfSearching, bench: Bench, rng: np.random.Generator, budget: Budget
) -> Searched:
    case, cases = prop.hunt(bench.law, rng, budget.lanes)
    worst = bench.alone(case)
    return Searched(worst=worst, cases=cases, note=_repeats(bench, worst))


def _repeats(bench: Bench, worst: Trial) -> str:
    if not worst.violates:
        return ""
    again = bench.alone(worst.case)
    same = np.array_equal([again.value, again.bound], [worst.value, worst.bound], equal_nan=True)
    return "" if same else AGAIN


def _spread(
    bench: Bench, space: Space, rng: np.random.Generator, budget: Budget, listed: Cases | None
) -> Trial:
    """Measure random lanes, or all there are; refine the worst until one violates."""
    pool: list[Trial] = []
    lanes = budget.lanes if listed is None else n_lanes(listed)
    for start in range(0, lanes, budget.batch):
        size = min(budget.batch, lanes - start)
        part = slice(start, start + size)
        cases = draw(space, rng, size) if listed is None else _rows(listed, part)
        pool = _worst(bench.run(cases), cases, pool, budget.worst)
        if pool[0].violates:
            return pool[0]
    for step in range(budget.rounds if listed is None else 0):
        scale = SCALES[min(step * len(SCALES) // budget.rounds, len(SCALES) - 1)]
        repeated = stack_cases([t.case for t in pool for _ in range(budget.neighbours)])
        cases = near(space, repeated, rng, scale)
        pool = _worst(bench.run(cases), cases, pool, budget.worst)
        if pool[0].violates:
            break
    return pool[0]


def _rows(cases: Cases, rows: slice) -> Cases:
    return {name: column[rows] for name, column in cases.items()}


def _worst(scores: Scores, cases: Cases, pool: list[Trial], n: int) -> list[Trial]:
    order = np.argsort(-scores.score, kind="stable")[:n]
    found = [scores.at(cases, int(lane)) for lane in order]
    return sorted(pool + found, key=lambda trial: -trial.score)[:n]


def _climb(bench: Bench, space: Space, start: Trial, budget: Budget) -> Trial:
    """Let hypothesis climb the score from the worst lane, and shrink what violates."""
    worst = start

    # Everything is set here: a profile loaded by a caller must not change a report.
    @settings(
        max_examples=budget.examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=cast("list[HealthCheck]", list(HealthCheck)),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )
    @seed(budget.seed)
    @given(_strategy(space, start.case))
    def attempt(case: Case) -> None:
        nonlocal worst
        trial = bench.alone(case)
        if trial.violates or trial.score > worst.score:
            worst = trial  # the last that violates is the smallest
        if math.isfinite(trial.score):
            target(trial.score)
        if trial.violates:
            raise _Broken

    # A law with hidden state makes hypothesis complain; the row says so by itself.
    with suppress(_Broken, HypothesisException):
        attempt()
    return worst


def _strategy(space: Space, start: Case) -> st.SearchStrategy[Case]:
    # Each parameter is the worst lane's own or another: a mix of both is a move along an axis.
    return st.fixed_dictionaries(
        {name: _values(part) | st.just(start[name]) for name, part in space.items()}
    )


def _values(part: Number | Choice) -> st.SearchStrategy[Any]:
    if isinstance(part, Choice):
        return st.sampled_from(part.options)
    if part.integer:
        return st.integers(round(part.low), round(part.high))
    if part.log:
        tens = st.integers(math.floor(math.log10(part.low)), math.ceil(math.log10(part.high)))
        shape = st.tuples(st.integers(100, 999), tens)
        return shape.map(lambda digits: _decimal(part, *digits))
    anything = st.floats(part.low, part.high, allow_subnormal=False)
    whole = math.ceil(part.low), math.floor(part.high)
    return st.integers(*whole).map(float) | anything if whole[0] <= whole[1] else anything


def _decimal(part: Number, digits: int, tens: int) -> float:
    return min(max(float(f"{digits}e{tens - 2}"), part.low), part.high)
