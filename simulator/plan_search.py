"""Where a service level begins to fail: the knee of load of one server, and the fewest servers.

A search is a generator: it yields the points it needs next and is sent their figures, so that the
searches of several presets go on side by side and their simulations fill every processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from controllers.core import require
from simulator.plan_bracket import LOWEST, RUNG, STRIDE, Bracket
from simulator.plan_figures import Figures
from simulator.plan_point import RECORDED, Point
from simulator.plan_verdict import Verdict, judge
from simulator.slo import Slo

Found = Mapping[Point, Figures]
T = TypeVar("T")
Search = Generator[list[Point], Found, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What all searches of a plan share."""

    slo: Slo
    rate_per_s: float  # to be served
    draws: int  # resampled hours beside the recorded one
    replicas_max: int
    rate_guess_per_s: float  # rung 0 of the ladder of rates
    head_start_rungs: int = 0  # how far below the recorded hour's knee that of all hours may lie

    def __post_init__(self) -> None:
        require(self.draws >= 2, "seeds must be >= 2: an interval needs them", seeds=self.draws)
        require(self.replicas_max >= 1, "replicas_max must be >= 1", replicas_max=self.replicas_max)

    def rate(self, rung: int) -> float:
        """Return the rate of a rung; presets share the ladder, and so the random numbers on it."""
        return self.rate_guess_per_s * RUNG**rung

    def rate_or_none(self, rung: int | None) -> float | None:
        """Return the rate of a rung, None for none."""
        return None if rung is None else self.rate(rung)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A preset on some servers at a rate: the recorded hour and every resampled one."""

    preset: str
    replicas: int
    rate_per_s: float
    verdict: Verdict
    recorded: Figures
    draws: tuple[Figures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a preset needs."""

    preset: str
    knee: Load | None  # the largest rung that one server meets the level on; None: none
    above: float | None  # the next rung, which it does not meet, per second; None: none failed
    fewest: Load  # fewest servers that meet the level at the rate; the most tried where none do
    fewer: Load | None  # one server less, which does not; None where one is enough
    recorded_knee_per_s: float | None = None  # the knee by the recorded hour alone; None: none

    @property
    def met(self) -> bool:
        """Whether the service level can be met at the rate."""
        return self.fewest.verdict.met


def search(question: Question, preset: str) -> Search[Answer]:
    """Find the knee of one server, then the fewest servers for the rate."""
    recorded = yield from _recorded_knee(question, preset)
    knee, above = yield from _knee(question, preset, recorded)
    guess = question.replicas_max
    if knee is not None:
        guess = min(guess, math.ceil(question.rate_per_s / knee.rate_per_s))
    fewest, fewer = yield from _fewest(question, preset, guess)
    return Answer(
        preset=preset,
        knee=knee,
        above=above,
        fewest=fewest,
        fewer=fewer,
        recorded_knee_per_s=question.rate_or_none(recorded.meets),
    )


def look(question: Question, preset: str, replicas: int, rate_per_s: float) -> Search[Load]:
    """Look at one load: the recorded hour and every draw."""
    hours = range(RECORDED, question.draws + 1)
    points = [Point(preset, replicas, rate_per_s, draw) for draw in hours]
    found = yield points
    recorded, *draws = (found[point] for point in points)
    return Load(
        preset=preset,
        replicas=replicas,
        rate_per_s=rate_per_s,
        verdict=judge(question.slo, recorded, draws),
        recorded=recorded,
        draws=tuple(draws),
    )


def drive(
    searches: Mapping[str, Search[T]], figures_of: Callable[[Iterable[Point]], Found]
) -> dict[str, T]:
    """Run searches side by side; return what each returned, by name."""
    done: dict[str, T] = {}
    wanted: dict[str, list[Point]] = {}

    def advance(name: str, found: Found | None) -> None:
        try:
            wanted[name] = next(searches[name]) if found is None else searches[name].send(found)
        except StopIteration as end:
            wanted.pop(name, None)
            done[name] = end.value

    for name in searches:
        advance(name, None)
    while wanted:
        found = figures_of([point for points in wanted.values() for point in points])
        for name in list(wanted):
            advance(name, found)
    return {name: done[name] for name in searches}


def _knee(
    question: Question, preset: str, recorded: Bracket
) -> Search[tuple[Load | None, float | None]]:
    """Return the highest rung that every hour meets, and the rate of the one above.

    ``recorded`` brackets it; resampled hours can only lower it from there. The first
    guess lies as far below as their own load varies, the next by interpolation.
    """
    if recorded.meets is None:
        return None, question.rate_or_none(recorded.fails)
    bracket = Bracket(recorded.fails)
    loads: dict[int, Load] = {}
    rung, stride = recorded.meets - question.head_start_rungs, 2
    while True:
        loads[rung] = yield from look(question, preset, 1, question.rate(rung))
        verdict = loads[rung].verdict
        bracket.add(rung, verdict.excess)
        if bracket.meets is not None:
            if rung == recorded.meets or bracket.closed:
                return loads[bracket.meets], question.rate_or_none(bracket.fails)
            rung = recorded.meets
            if bracket.fails is not None:  # None where the whole ladder meets the level
                rung = recorded.meets  # where the ladder ends before anything fails
            if bracket.fails is not None:
                rung = min(bracket.crossing(len(loads)), recorded.meets)
        elif rung <= LOWEST:
            return None, question.rate_or_none(bracket.fails)
        else:
            rung, stride = max(rung - stride, LOWEST), 2 * stride


def _recorded_knee(question: Question, preset: str) -> Search[Bracket]:
    """Bracket the knee of the recorded hour: a rung that meets and the next, which does not.

    Two rungs are tried at once, for two processors.
    """
    bracket, probes, rounds = Bracket(), [0, STRIDE], 0
    while probes:
        points = {rung: Point(preset, 1, question.rate(rung), RECORDED) for rung in probes}
        found = yield list(points.values())
        for rung in probes:
            hour = found[points[rung]]
            verdict = judge(question.slo, hour, [hour])
            bracket.add(rung, verdict.excess)
        rounds += 1
        if bracket.fails is None or bracket.meets is None:
            probes = bracket.outside()
        elif bracket.closed:
            probes = []
        else:
            best = bracket.crossing(rounds)
            probes = sorted({best, best + 1} - {bracket.meets, bracket.fails})
    return bracket


def _fewest(question: Question, preset: str, guess: int) -> Search[tuple[Load, Load | None]]:
    """Bisect the number of servers, beginning at ``guess`` and its neighbours.

    The count that meets the level and one less, which does not, are both simulated. That more
    servers never serve worse is assumed, as in every bisection.
    """
    seen: dict[int, Load] = {}
    fails, meets = 0, question.replicas_max + 1  # most known to fail; fewest known to meet
    count, stride = guess, 1
    while meets - fails > 1:
        seen[count] = yield from look(question, preset, count, question.rate_per_s)
        if seen[count].verdict.met:
            meets, count = count, max(count - stride, fails + 1)
        else:
            fails, count = count, min(count + stride, meets - 1)
        if fails > 0 and meets <= question.replicas_max:
            count = (fails + meets) // 2
        stride *= 2
    best = min(meets, question.replicas_max)
    return seen[best], seen.get(best - 1)
