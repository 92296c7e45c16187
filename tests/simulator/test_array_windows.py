"""A request in two parts: one server prefills and gives the first tokens, another goes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import simpy

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator import Residual, TraceModel
from simulator.array_check import check
from simulator.server import Window
from tests.simulator.array_worlds import Outcome, World, arrivals_of, assert_same, serve

LIMITS = EngineLimits(max_seqs=6, token_budget=64, n_pages=14, max_context=512)


@pytest.fixture(scope="module")
def world(model: TraceModel, residual: Residual, step_law: StepLaw) -> World:
    rng = np.random.default_rng(2)
    return World(
        model=model,
        residual=residual,
        preset=dataclasses.replace(get_preset("full"), sparse_min_context=20),
        limits=LIMITS,
        step_law=step_law,
        arrivals=arrivals_of(rng, len(model.slices), 16, cancel_share=0.0),
    )


def windowed(world: World, window: Window, **changes: object) -> World:
    served = [a for a in world.arrivals if a.output_tokens > window.first]
    windows = {a.request.request_id: window for a in served}
    return dataclasses.replace(world, arrivals=served, windows=windows, **changes)


def streams(outcome: Outcome) -> dict[int, list[tuple[float, ...]]]:
    """Return what each request was given, by id, in order of position."""
    tokens = outcome.server.ledger.tokens
    names = ("position", "h_applied", "h_cal", "command", "surprisal")
    found: dict[int, list[tuple[float, ...]]] = {}
    rows = zip(tokens["request_id"].tolist(), *(tokens[n].tolist() for n in names), strict=True)
    for request_id, *values in rows:
        found.setdefault(request_id, []).append(tuple(values))
    return {request_id: sorted(rows) for request_id, rows in found.items()}


@pytest.mark.parametrize(
    "window",
    [Window(last=1), Window(first=1, kv_imported=True), Window(first=3, last=9), Window(first=5)],
)
def test_steps_and_macro_serve_a_window_alike(world: World, window: Window):
    part = windowed(world, window)
    assert_same(serve(part, "steps"), serve(part, "macro"))


def test_two_windows_give_the_stream_of_one_server(world: World):
    whole = serve(world, "online")
    assert whole.server.ledger.requests["preemptions"].sum() > 0
    first = serve(windowed(world, Window(last=4)), "macro")
    second = serve(windowed(world, Window(first=4, kv_imported=True)), "macro")
    late = streams(second)
    for request_id, rows in streams(first).items():
        assert rows + late.get(request_id, []) == streams(whole)[request_id]
    reasons = dict(first.ended)
    for arrival in world.arrivals:
        longer = arrival.output_tokens > 4
        assert (reasons[arrival.request.request_id] == "transferred") == longer
    assert dict(second.ended).items() <= dict(whole.ended).items()


def test_imported_kv_is_read_and_not_computed(world: World):
    roomy = dataclasses.replace(LIMITS, n_pages=400, max_seqs=32)
    part = windowed(world, Window(first=1, kv_imported=True), limits=roomy)
    ledger = serve(part, "macro").server.ledger
    assert ledger.steps["prompt_tokens"].sum() == 0
    assert ledger.steps["n_decode"].sum() == ledger.requests["tokens"].sum()
    assert np.array_equal(ledger.requests["coverage_rows"], ledger.requests["tokens"])


def test_a_preempted_import_is_computed_again(world: World):
    ledger = serve(windowed(world, Window(first=1, kv_imported=True)), "macro").server.ledger
    assert ledger.requests["preemptions"].sum() > 0
    assert ledger.steps["prompt_tokens"].sum() > 0


def test_a_window_counts_no_more_than_it_may_give(world: World):
    part = windowed(world, Window(last=1))
    env = simpy.Environment()
    server = part.server(env, "macro", [])
    server.submit(part.arrivals[0], window=Window(last=1))
    assert server.outstanding_tokens == part.arrivals[0].request.prompt_tokens + 1


def test_the_loop_serves_no_window(world: World):
    with pytest.raises(ValueError, match="online"):
        serve(windowed(world, Window(last=1)), "online")


def test_a_check_notices_sums_that_are_nobodys(world: World):
    env = simpy.Environment()
    server = world.server(env, "macro", [])
    server.submit(world.arrivals[0])
    env.run(400_000_000)
    here = server._here
    check(here)
    here.timeline.rows[0][here.step - here.timeline.base + 1] += 1
    with pytest.raises(AssertionError, match="sums are not the residents'"):
        check(here)
    here.timeline.rows[0][here.step - here.timeline.base + 1] -= 1
    here.outstanding += 1
    with pytest.raises(AssertionError, match="outstanding"):
        check(here)
