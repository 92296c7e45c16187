"""Priority laws: urgency and completion never demote, fresh value is bounded, waiting wins at last.

Signals are wild but legal: finite, ages no shorter than waits, completion a share. Each lane is a
request, or a pair of a waiting and a fresh one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.certificates.priority import (
    aging,
    priority_bounded,
    priority_completion,
    priority_urgency,
)
from controllers.core import Law, LoadSignal, require
from reports.verify.property import (
    Case,
    Cases,
    Measured,
    Number,
    Property,
    Space,
    lanes_of,
    n_lanes,
)

RELATIVE = 1e-5  # float32 rounding of a priority, relative
ROUND_WAIT = 1e-3  # relative, of a claimed wait
LONGEST_WAIT_S = 1.0e6  # 12 days: a wait no server may ask for
STEPS_PER_S = 20.0  # how many plans a second of waiting holds, in the signals below
WAIT_POINTS = 41  # of the grid on which the end of a wait is looked for

Column = np.ndarray  # [B]

# Collapse can reach ln n; what is modelled may be anything from microseconds to hours.
REQUEST: Mapping[str, Number] = {
    "collapse_nats": Number(0.0, 12.0),
    "completion": Number(0.0, 1.0),
    "cost_s": Number(1e-5, 1e3, log=True),
    "pages_held": Number(0, 100_000, integer=True),
    "pages_needed": Number(0, 100_000, integer=True),
    "slack_s": Number(-1e3, 1e3),
}
TIMES: Mapping[str, Number] = {"wait_s": Number(0.0, 1e4), "age_beyond_wait_s": Number(0.0, 1e4)}


@dataclass(frozen=True, slots=True)
class NeverDemotes:
    """More of one signal, other things equal, never lowers the priority."""

    name: str
    statement: str
    field: str
    step: Number  # how far the signal may move
    theory: Callable[[Law], Certificate | None]
    unit: str = "relative fall"

    def unfit(self, law: Law) -> str:
        """Return an empty string: this binds every priority law."""
        return ""

    def space(self, law: Law) -> Space:
        """Return a request, its times, and how far its signal moves."""
        return {**REQUEST, **TIMES, "move": self.step}

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return how much of the priority the move took away."""
        before, after = self._both(law, cases)
        scale = np.maximum(np.maximum(np.abs(before), np.abs(after)), 1e-9)
        with np.errstate(invalid="ignore"):
            # A rise to infinity is no fall: that it is infinite is another property's finding.
            fall = np.where(after >= before, 0.0, (before - after) / scale)
        return Measured(fall, np.full(len(before), RELATIVE))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the two priorities."""
        before, after = self._both(law, lanes_of(case))
        moved = self._moved(lanes_of(case))[self.field][0]
        verdict = "lower than before" if after[0] < before[0] else "not lower"
        return [
            "one request, all signals equal but one:",
            *(f"  {name} {case[name]:.4g}" for name in REQUEST if name != self.field),
            f"  {self.field} {case[self.field]:.4g}: priority {before[0]:.6g}",
            f"  {self.field} {moved:.4g}: priority {after[0]:.6g}, {verdict}",
        ]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return self.theory(law)

    def _moved(self, cases: Cases) -> Cases:
        low, high = REQUEST[self.field].low, REQUEST[self.field].high
        return {**cases, self.field: np.clip(cases[self.field] + cases["move"], low, high)}

    def _both(self, law: Law, cases: Cases) -> tuple[Column, Column]:
        # One state: a law with memory must not be judged on two different pasts.
        signal = _request(cases)
        with np.errstate(all="ignore"):
            state = law.init(signal)
            before = law.update(state, signal)[1]
            after = law.update(state, _request(self._moved(cases)))[1]
        return _float64(before), _float64(after)


@dataclass(frozen=True, slots=True)
class Bounded:
    """Proposition 2: a request that has not waited scores a finite number, pi_max at most."""

    name: str = "priority.bounded"
    statement: str = "at wait 0 the priority is finite, and at most the law's pi_max if it has one"
    unit: str = "priority"

    def unfit(self, law: Law) -> str:
        """Return an empty string: this binds every priority law."""
        return ""

    def space(self, law: Law) -> Space:
        """Return a request and its age; its wait is 0."""
        return {**REQUEST, "age_beyond_wait_s": TIMES["age_beyond_wait_s"]}

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return the priority; NaN stands for any that is not finite."""
        priority = _priority(law, _request({**cases, "wait_s": np.zeros(n_lanes(cases))}))
        value = np.where(np.isfinite(priority), priority, np.nan)
        return Measured(value, np.full(len(value), promise(law, "pi_max") * (1.0 + RELATIVE)))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the priority and what it was made of."""
        measured = self.measure(law, lanes_of(case))
        return [
            "a request that has not waited:",
            *(f"  {name} {case[name]:.4g}" for name in REQUEST),
            f"scores {measured.value[0]:.6g}, at most {measured.bound[0]:.6g} was promised",
        ]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return priority_bounded(law)


@dataclass(frozen=True, slots=True)
class Aging:
    """After a finite wait no fresh request outranks a waiting one; ties go to the older.

    Fresh means just arrived: no wait and no age. The wait needed is looked for on a grid up to
    ``LONGEST_WAIT_S``; from it on, no longer wait of the grid may lose either.
    """

    name: str = "priority.aging"
    statement: str = "after a finite wait (max_wait_s if claimed) nothing fresh outranks a waiter"
    unit: str = "s of wait needed"

    def unfit(self, law: Law) -> str:
        """Return an empty string: this binds every priority law."""
        return ""

    def space(self, law: Law) -> Space:
        """Return a waiting request and a fresh one."""
        waiter = {f"waiter_{name}": part for name, part in REQUEST.items()}
        fresh = {f"fresh_{name}": part for name, part in REQUEST.items()}
        return {**waiter, "age_beyond_wait_s": TIMES["age_beyond_wait_s"], **fresh}

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return the wait after which the waiter is never outranked again; inf if there is none."""
        claimed = self._claimed(law)
        grid = self._grid(claimed)
        fresh = self._fresh(law, cases)
        lost = np.stack([self._waiter(law, cases, wait_s) < fresh for wait_s in grid])
        n_lost = len(grid) - np.argmax(lost[::-1], axis=0)  # up to and with the last lost point
        n_lost = np.where(lost.any(axis=0), n_lost, 0)
        needed = np.append(grid, np.inf)[n_lost]
        # The next point of the grid stands for the claimed wait: rounding may need it.
        needed = np.where(
            needed <= claimed * (1.0 + ROUND_WAIT), np.minimum(needed, claimed), needed
        )
        return Measured(needed, np.full(len(needed), claimed))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the pair, and the waiter's priority as it waits."""
        lanes = lanes_of(case)
        fresh = float(self._fresh(law, lanes)[0])
        lines = ["             waiting       fresh"]
        lines += [
            f"  {n:<14}{case[f'waiter_{n}']:>9.4g} {case[f'fresh_{n}']:>9.4g}" for n in REQUEST
        ]
        lines.append(f"a fresh request like this scores {fresh:.6g} whenever it comes")
        waits = [0.0, 1.0, 60.0, 3600.0, LONGEST_WAIT_S]
        claimed = promise(law, "max_wait_s")
        if math.isfinite(claimed):
            waits = sorted({*waits, claimed})
        for wait_s in waits:
            score = float(self._waiter(law, lanes, wait_s)[0])
            rank = "outranked" if score < fresh else "goes first"
            lines.append(f"  after {wait_s:9.6g} s the waiter scores {score:.6g}: {rank}")
        return lines

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this; residence counts in the starvation properties only."""
        return aging(law)

    @staticmethod
    def _claimed(law: Law) -> float:
        return min(promise(law, "max_wait_s"), LONGEST_WAIT_S)

    @staticmethod
    def _grid(claimed: float) -> np.ndarray:
        points = [0.0, claimed, claimed * (1.0 + ROUND_WAIT), LONGEST_WAIT_S]
        return np.unique([*points, *np.geomspace(1e-2, LONGEST_WAIT_S, WAIT_POINTS)])

    @staticmethod
    def _fresh(law: Law, cases: Cases) -> Column:
        fresh = {name: cases[f"fresh_{name}"] for name in REQUEST}
        return _priority(law, load_signal(n_lanes(cases), **fresh))

    @staticmethod
    def _waiter(law: Law, cases: Cases, wait_s: float) -> Column:
        waiter = {name: cases[f"waiter_{name}"] for name in REQUEST}
        times = {"wait_s": np.full(n_lanes(cases), wait_s)}
        return _priority(
            law, _request({**waiter, **times, "age_beyond_wait_s": cases["age_beyond_wait_s"]})
        )


URGENCY = NeverDemotes(
    name="priority.urgency",
    statement="falling slack never lowers priority, other things equal",
    field="slack_s",
    step=Number(-1e3, 0.0),
    theory=priority_urgency,
)
COMPLETION = NeverDemotes(
    name="priority.completion",
    statement="more completion never lowers priority, other things equal",
    field="completion",
    step=Number(0.0, 1.0),
    theory=priority_completion,
)
PROPERTIES: tuple[Property, ...] = (URGENCY, COMPLETION, Bounded(), Aging())


def load_signal(lanes: int, **fields: Any) -> LoadSignal:
    """Return the load signal of a just arrived request, float32 ``[lanes]``, with ``fields``."""
    rest = {"slack_s": 10.0, "cost_s": 0.1, "predicted_tokens": 1.0, "oracle_tokens": 1.0}
    values = {name: fields.get(name, rest.get(name, 0.0)) for name in LoadSignal._fields}
    return LoadSignal(
        **{k: np.array(np.broadcast_to(v, (lanes,)), dtype=np.float32) for k, v in values.items()}
    )


def promise(law: Law, name: str) -> float:
    """Return a promise of the law, its own or inherited; inf where it makes none.

    Raises ``ValueError`` where it promises something that is no number.
    """
    value = getattr(law, name, math.inf)
    require(isinstance(value, Real), f"{name} must be a number", **{name: value})
    return float(value)


def _request(cases: Cases) -> LoadSignal:
    fields = {name: cases[name] for name in REQUEST}
    wait_s = cases["wait_s"]
    age_s = wait_s + cases["age_beyond_wait_s"]
    steps = np.floor(STEPS_PER_S * wait_s)
    return load_signal(n_lanes(cases), **fields, wait_s=wait_s, age_s=age_s, wait_steps=steps)


def _priority(law: Law, signal: LoadSignal) -> Column:
    with np.errstate(all="ignore"):
        return _float64(law.update(law.init(signal), signal)[1])


def _float64(command: Any) -> Column:
    return np.asarray(command, dtype=np.float64)
