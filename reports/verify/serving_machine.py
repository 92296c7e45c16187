"""The adversary of a server: hypothesis draws what users do, and makes what breaks a rule small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reports.verify.property import Case
from reports.verify.serving_final import FINAL_RULES
from reports.verify.serving_invariants import Broken
from reports.verify.serving_openings import openings
from reports.verify.serving_script import Operation, read_script, shortened, write_script
from reports.verify.serving_shrink import shrink_script
from reports.verify.serving_subject import SETTING_SPACE, ServingSubject, Setting
from reports.verify.serving_world import ServingWorld

MAX_REQUESTS = 12
ARRIVALS = st.lists(  # together at most MAX_CONTEXT tokens each
    st.tuples(
        st.sampled_from(["submit", "submit", "submit_greedy"]),
        st.integers(1, 25),
        st.integers(1, 15),
    ),
    min_size=1,
    max_size=4,
)
WAITS_MS = st.sampled_from([1, 100, 3_000, 100_000])
STEPS = st.integers(1, 5)
OPERATIONS = 16  # of one script
IDS = st.integers(0, MAX_REQUESTS - 1)

_REPEATS = 3  # of a failing case, before it is made small
_SLOW_IS_FINE = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
)

Judge = Callable[[ServingWorld], None]  # raises Broken


@dataclass(slots=True)
class Hunt:
    """What came of a hunt: distinct cases run to their end, the last one, and one that failed."""

    last: Case = field(default_factory=dict)
    failed: Case | None = None
    _seen: set[str] = field(default_factory=set)

    def note(self, case: Case, *, failed: bool = False) -> None:
        """Take in a case that was run to its end."""
        self.last = case
        self.failed = case if failed else self.failed
        self._seen.add(repr(case))

    @property
    def cases(self) -> int:
        """Distinct cases."""
        return len(self._seen)


def case_from(world: ServingWorld) -> Case:
    """Return the case of a world, as JSON scalars."""
    script = write_script(shortened(world.operations))
    return {**{name: getattr(world.setting, name) for name in SETTING_SPACE}, "script": script}


def examine(
    subject: ServingSubject, case: Case, judge: Judge, *, strict: bool
) -> tuple[ServingWorld, dict[str, str]]:
    """Run a case without hypothesis; return its world and what broke: rule -> what was seen.

    Where it is not ``strict`` a rule that breaks on the way ends the script and is no finding.
    """
    world = ServingWorld(subject, Setting.of(case))
    breaches: dict[str, str] = {}
    try:
        for operation in read_script(case["script"]):
            world.apply(operation)
    except Broken as broken:
        breaches = broken.breaches if strict else {}
    if not breaches:
        try:
            judge(world)
        except Broken as broken:
            breaches = broken.breaches
    return world, breaches


def hunt_server(
    subject: ServingSubject,
    judge: Judge,
    rng: np.random.Generator,
    examples: int,
    *,
    strict: bool,
    stops: tuple[int, ...] = (0, 20),
) -> tuple[Case, int]:
    """Try the openings, then let a state machine drive servers; return the worst case and how many.

    A case that breaks a rule is made small. ``judge`` has the last word on each; ``stops`` are the
    chances of a stop to draw, percent.
    """
    hunt = Hunt()
    for case in openings(stops):
        hunt.note(case, failed=bool(examine(subject, case, judge, strict=strict)[1]))
        if hunt.failed is not None:
            break
    else:
        machine = _machine(subject, judge, hunt, strict=strict, stops=stops)
        run_machine(machine, hunt, rng, examples)
    if hunt.failed is None:
        return hunt.last, hunt.cases
    return _small(subject, judge, hunt.failed, strict=strict), hunt.cases


def _small(subject: ServingSubject, judge: Judge, case: Case, *, strict: bool) -> Case:
    first, *others = (examine(subject, case, judge, strict=strict)[1] for _ in range(_REPEATS))
    if any(other != first for other in others):
        return case  # hidden state or chance: a smaller case would break by luck, and not again
    wanted = set(first)
    if not wanted & {rule.__name__ for rule in FINAL_RULES}:
        judge = ServingWorld.drain if strict else judge  # what breaks on the way needs no more

    def fails(setting: Case, operations: list[Operation]) -> bool:
        candidate = {**setting, "script": write_script(operations)}
        try:
            return bool(wanted & set(examine(subject, candidate, judge, strict=strict)[1]))
        except ValueError:
            return False  # no legal script

    plain = Setting(stop_percent=case["stop_percent"] and 20)
    setting = {name: case[name] for name in SETTING_SPACE}
    setting, operations = shrink_script(
        setting,
        read_script(case["script"]),
        fails,
        {name: getattr(plain, name) for name in SETTING_SPACE},
    )
    return {**setting, "script": write_script(shortened(operations))}


def run_machine(
    machine: type[RuleBasedStateMachine], hunt: Hunt, rng: np.random.Generator, examples: int
) -> None:
    """Run ``examples`` of a machine that writes its failures to ``hunt``; raise none of them."""
    try:
        run_state_machine_as_test(
            seed(int(rng.integers(2**32)))(machine), settings=_settings(examples)
        )
    except Broken:
        pass  # recorded by the machine
    except Exception:
        # Hypothesis says so when a failure does not repeat: hidden state, chance or addresses.
        if hunt.failed is None:
            raise


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=OPERATIONS,
        deadline=None,
        database=None,
        derandomize=True,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate,),
        suppress_health_check=_SLOW_IS_FINE,
        verbosity=Verbosity.quiet,
    )


def _machine(
    subject: ServingSubject, judge: Judge, hunt: Hunt, *, strict: bool, stops: tuple[int, ...]
) -> type[RuleBasedStateMachine]:
    """Return a state machine class that writes to ``hunt``."""

    class ServerMachine(RuleBasedStateMachine):
        world: ServingWorld | None = None

        @initialize(
            max_seqs=st.sampled_from([2, 1, 3, 4]),
            n_pages=st.integers(10, 16),
            token_budget=st.sampled_from([16, 8, 4]),
            quantum=st.sampled_from([0, 1, 3]),
            stop_percent=st.sampled_from(stops),
            fail_percent=st.sampled_from([0, 2]),
        )
        def build(self, **values: int) -> None:
            self.world = ServingWorld(subject, Setting(**values))

        @precondition(lambda self: self.room)
        @rule(arrivals=ARRIVALS)
        def submit(self, arrivals: list[tuple[str, int, int]]) -> None:
            for verb, prompt, length in arrivals:
                if self.room:
                    self.do(verb, prompt, length)

        @rule(count=STEPS)
        def step(self, count: int) -> None:
            self.do("step", count)

        @rule(wait_ms=WAITS_MS)
        def wait(self, wait_ms: int) -> None:
            self.do("wait", wait_ms)

        @rule(request_id=IDS)
        def cancel(self, request_id: int) -> None:
            self.do("cancel", request_id)

        @rule(request_id=IDS)
        def cancel_during_step(self, request_id: int) -> None:
            self.do("cancel_during_step", request_id)

        @rule(request_id=IDS)
        def disable(self, request_id: int) -> None:
            self.do("disable", request_id)

        @property
        def room(self) -> bool:
            return self.world is not None and len(self.world.requests) < MAX_REQUESTS

        def do(self, verb: str, *arguments: int) -> None:
            assert self.world is not None
            if self.world.broken:
                return
            try:
                self.world.apply(Operation(verb, arguments))
            except Broken:
                if strict:
                    hunt.note(case_from(self.world), failed=True)
                    raise

        def teardown(self) -> None:
            world = self.world
            if world is None or (world.broken and strict):
                return  # nothing was built, or what broke is already noted
            try:
                judge(world)
            except Broken:
                hunt.note(case_from(world), failed=True)
                raise
            hunt.note(case_from(world))

    return ServerMachine
