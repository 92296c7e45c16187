"""Serving properties: a server under any users keeps its rules, its pages and its ignorance.

Their cases are scripts (``serving_script``), found and made small by state machines, replayed
without them. ``law`` is a preset, a ``ServingSubject``, or a class of scheduler or page pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.serving.pages import PagePool
from reports.verify.property import (
    Case,
    Cases,
    Measured,
    Number,
    Property,
    Space,
    case_of,
    n_lanes,
)
from reports.verify.serving_final import finish, foresee
from reports.verify.serving_machine import Judge, examine, hunt_server
from reports.verify.serving_pool import (
    MOST_PAGES,
    POOL_VERBS,
    hunt_pool,
    run_pool_case,
    tell_pool,
)
from reports.verify.serving_script import cut, read_script, tell_script
from reports.verify.serving_subject import (
    SETTING_SPACE,
    ServingSubject,
    Setting,
    serving_subject,
)
from reports.verify.serving_world import ServingWorld

__all__ = ["PROPERTIES", "ServingSubject", "serving_subject"]


@dataclass(frozen=True, slots=True)
class Loop:
    """A server keeps every rule of ``serving_invariants`` and ``serving_final``."""

    name: str = "serving.loop"
    statement: str = (
        "pages, requests, limits, order, causality, progress and replay hold at every step"
    )
    unit: str = "broken rules"

    def unfit(self, law: Any) -> str:
        """Return an empty string for whatever can serve."""
        return _unfit(law)

    def space(self, law: Any) -> Space:
        """Return the ranges of the setting; scripts have none."""
        return SETTING_SPACE

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the worst case of ``budget`` scripts, and how many were run."""
        return hunt_server(_subject(law), finish, rng, budget, strict=True)

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Count the rules that each script breaks; none may be."""
        return _counted([_examine(law, case, finish)[1] for case in _each(cases)])

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the operations and what broke."""
        return _story(case, *_examine(law, case, finish))

    def certificate(self, law: Any) -> Certificate | None:
        """Return None: no proof is attempted of a program."""
        return None


@dataclass(frozen=True, slots=True)
class Oracle:
    """A server plans by what has happened: other output lengths to come change no plan."""

    name: str = "serving.oracle"
    statement: str = "no plan depends on output lengths that nobody can know yet"
    unit: str = "broken rules"

    def unfit(self, law: Any) -> str:
        """Return why nothing can be said: the law is marked as an oracle."""
        subject = serving_subject(law)
        if subject is not None and subject.preset.priority.oracle:
            return "the priority law is marked as an oracle: it is given true lengths"
        return _unfit(law)

    def space(self, law: Any) -> Space:
        """Return the ranges of the setting; scripts have none."""
        return SETTING_SPACE

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the worst case of ``budget`` scripts, and how many were run."""
        return hunt_server(_subject(law), foresee, rng, budget, strict=False, stops=(20,))

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return 1 for each script whose plans change with the stops to come, else 0."""
        return _counted([_examine(law, case, foresee)[1] for case in _each(cases)])

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the operations and the plan that knew too much."""
        return _story(case, *_examine(law, case, foresee))

    def certificate(self, law: Any) -> Certificate | None:
        """Return None: no proof is attempted of a program."""
        return None


@dataclass(frozen=True, slots=True)
class Pool:
    """A page pool agrees with a list of counts, gives the lowest pages first, refuses misuse."""

    name: str = "serving.pool"
    statement: str = "pages are conserved, given lowest first, and never freed or shared unheld"
    unit: str = "broken rules"

    def unfit(self, law: Any) -> str:
        """Return an empty string for whatever has a pool."""
        return _unfit(law)

    def space(self, law: Any) -> Space:
        """Return the size of the pool; scripts have no range."""
        return {"n_pages": Number(1, MOST_PAGES, integer=True)}

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the worst case of ``budget`` scripts, and how many were run."""
        return hunt_pool(_pool_type(law), rng, budget)

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Count the rules that each script breaks; none may be."""
        return _counted([run_pool_case(_pool_type(law), case) for case in _each(cases)])

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the operations and what broke."""
        operations = read_script(case["script"], POOL_VERBS)
        told = [f"A pool of {case['n_pages']} pages.", *map(tell_pool, operations)]
        return [*cut(told), *_told(run_pool_case(_pool_type(law), case))]

    def certificate(self, law: Any) -> Certificate | None:
        """Return None: no proof is attempted of a program."""
        return None


def _unfit(law: Any) -> str:
    return "" if serving_subject(law) is not None else f"{type(law).__name__} serves nobody"


def _subject(law: Any) -> ServingSubject:
    subject = serving_subject(law)
    if subject is None:
        raise ValueError(f"a server needs a preset, a scheduler or a pool; got {law!r}")
    return subject


def _pool_type(law: Any) -> type[PagePool]:
    """Return the pool to examine: the subject's own, or the one its scheduler makes."""
    subject = _subject(law)
    if subject.pool_type is not None:
        return subject.pool_type
    return type(ServingWorld(subject, Setting()).loop.scheduler.pool)


def _each(cases: Cases) -> Iterator[Case]:
    return (case_of(cases, lane) for lane in range(n_lanes(cases)))


def _counted(breaches: list[dict[str, str]]) -> Measured:
    value = np.array([float(len(broken)) for broken in breaches])
    return Measured(value, np.zeros_like(value))


def _examine(law: Any, case: Case, judge: Judge) -> tuple[ServingWorld, dict[str, str]]:
    return examine(_subject(law), case, judge, strict=judge is finish)


def _story(case: Case, world: ServingWorld, breaches: dict[str, str]) -> list[str]:
    told = cut(tell_script(read_script(case["script"])))
    rest = ["run until nothing is left"] if world.draining else []
    return [world.setting.tell(), *told, *rest, *_told(breaches)]


def _told(breaches: dict[str, str]) -> list[str]:
    lines = [f"BROKEN {name}: {seen}" for name, seen in breaches.items()]
    return lines or ["every rule holds"]


PROPERTIES: tuple[Property, ...] = (Loop(), Pool(), Oracle())
