"""KV that a preempted request finds again, and plans made a step ahead, are alike in all modes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.serving.retained import NOBODY, Retained
from controllers.steplaw import StepLaw
from simulator import Residual, TraceModel
from simulator.arrival import Arrival
from simulator.late import LateServer
from tests.simulator.array_worlds import World, arrivals_of, assert_same, serve

LIMITS = EngineLimits(
    max_seqs=12, token_budget=64, n_pages=14, max_context=512, keeps_preempted=True
)


class Pages:
    """Every page with its owner and place, in the order of freeing: what ``Retained`` counts."""

    def __init__(self, n: int) -> None:
        self.line = [(NOBODY, 0)] * n
        self.useful: dict[int, int] = {}

    def give(self, owner: int, pages: int, useful: int) -> None:
        self.useful[owner] = useful
        self.line += [(owner, place) for place in reversed(range(pages))]

    def find(self, owner: int, most: int) -> int:
        left = {place for who, place in self.line if who == owner}
        found = 0
        while found in left and found < min(most, self.useful.get(owner, 0)):
            found += 1
        self.line = [
            page if page[0] != owner else (NOBODY, 0)
            for page in self.line
            if page[0] != owner or page[1] >= found
        ]
        return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9)), max_size=40))
def test_counts_in_the_order_of_freeing_say_what_pages_still_hold(moves: list[tuple]):
    counted, pages = Retained(LIMITS), Pages(LIMITS.n_pages)
    held: dict[int, int] = {}
    for owner, size, use in moves:
        if owner not in held:  # admission: what is found, and the rest from the front of the line
            if size > len(pages.line):
                continue
            n_free = len(pages.line)
            expected = pages.find(owner, min(size, use))
            del pages.line[: size - expected]
            assert counted.take(owner, min(size, use), n_free) == expected
            held[owner] = size
        elif use % 2:  # growth, which nobody tells
            del pages.line[: (grown := min(1, len(pages.line)))]
            held[owner] += grown
        else:
            counted.give(owner, held[owner], useful := min(use, held[owner]))
            pages.give(owner, held.pop(owner), useful)


@pytest.fixture(scope="module")
def world(model: TraceModel, residual: Residual, step_law: StepLaw) -> World:
    return World(
        model=model,
        residual=residual,
        preset=dataclasses.replace(get_preset("full"), sparse_min_context=20),
        limits=LIMITS,
        step_law=step_law,
        arrivals=arrivals_of(np.random.default_rng(3), len(model.slices), 24),
    )


@pytest.mark.parametrize("quantum", [None, 5])
@pytest.mark.parametrize("preset", ["baseline", "full", "sampling"])
def test_all_modes_leave_one_ledger_where_the_preempted_keep_kv(
    preset: str, quantum: int | None, world: World
):
    chosen = dataclasses.replace(get_preset(preset), sparse_min_context=20, quantum_tokens=quantum)
    world = dataclasses.replace(world, preset=chosen)
    online = serve(world, "online")
    requests = online.server.ledger.requests
    assert requests["preemptions"].sum() > 0
    assert requests["rehit_tokens"].sum() > 0 or preset == "full"
    for mode in ("steps", "macro"):
        assert_same(online, serve(world, mode))


def test_found_kv_is_not_computed_again(world: World):
    quiet = dataclasses.replace(
        world, arrivals=[dataclasses.replace(a, cancel_ns=None) for a in world.arrivals]
    )
    lost = dataclasses.replace(LIMITS, keeps_preempted=False)
    kept = serve(quiet, "macro").server.ledger
    again = serve(dataclasses.replace(quiet, limits=lost), "macro").server.ledger
    assert again.requests["rehit_tokens"].sum() == 0
    assert kept.steps["prompt_tokens"].sum() < again.steps["prompt_tokens"].sum()
    assert (kept.requests["tokens"] == again.requests["tokens"]).all()


def test_shared_prompts_are_refused_beside_kept_kv(world: World):
    request = Request(request_id=99, prompt_tokens=16, max_tokens=2)
    server = world.server(simpy.Environment(), "online", [])
    with pytest.raises(ValueError, match="keeps_preempted"):
        server.submit(Arrival(request=request, arrival_ns=0, trace_index=0, page_hashes=(1,)))


class Ahead(World):
    """A world whose server plans a step ahead."""

    __slots__ = ()

    def server(self, env: simpy.Environment, mode: str, out: list[tuple[int, str]]) -> LateServer:
        return LateServer(env, super().server(env, mode, out))


def ahead(world: World) -> Ahead:
    return Ahead(**{f.name: getattr(world, f.name) for f in dataclasses.fields(World)})


@pytest.mark.parametrize("crash_ns", [None, 150_000_000])
def test_all_modes_leave_one_ledger_where_plans_are_made_ahead(crash_ns: int | None, world: World):
    late = ahead(dataclasses.replace(world, crash_ns=crash_ns))
    online = serve(late, "online")
    for mode in ("steps", "macro"):
        assert_same(online, serve(late, mode))


@pytest.mark.parametrize("mode", ["online", "steps", "macro"])
def test_an_arrival_during_a_step_joins_the_step_after_the_next(mode: str, world: World):
    def arrival(request_id: int, when_ns: int) -> Arrival:
        request = Request(request_id=request_id, prompt_tokens=20, max_tokens=30)
        return Arrival(request=request, arrival_ns=when_ns, trace_index=0, output_tokens=30)

    first = serve(ahead(dataclasses.replace(world, arrivals=[arrival(0, 0)])), mode)
    steps = first.server.ledger.steps
    during = int(steps["now_ns"][3] + steps["duration_ns"][3] // 2)
    both = serve(
        ahead(dataclasses.replace(world, arrivals=[arrival(0, 0), arrival(1, during)])), mode
    )
    requests = both.server.ledger.requests
    assert requests["first_scheduled_ns"][0] == 0  # the server was idle
    assert requests["arrival_ns"][1] == during
    assert requests["first_scheduled_ns"][1] == steps["now_ns"][5]
