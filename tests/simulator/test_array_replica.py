"""The array replica, step by step and in macro-steps, leaves the ledger of the serving loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.peers import PEERS
from controllers.presets import PRESETS, get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator import Residual, TraceModel
from tests.simulator.array_worlds import (
    GRID_NS,
    CoarseLaw,
    Outcome,
    World,
    arrivals_of,
    assert_same,
    serve,
    ties,
)

LIMITS = {
    "roomy": EngineLimits(max_seqs=32, token_budget=256, n_pages=400, max_context=512),
    "scarce": EngineLimits(max_seqs=12, token_budget=64, n_pages=14, max_context=512),
    "cap": EngineLimits(max_seqs=3, token_budget=64, n_pages=200, max_context=512),
    "tiny": EngineLimits(max_seqs=6, token_budget=6, n_pages=40, max_context=512),
}
SCORED = {
    "per_scored_unit_s": 7e-6,
    "pruned_step_s": 3e-3,
    "prompt_step_s": 2e-3,
    "per_prompt_context_s": 9e-6,
    "per_knee_decode_s": 7e-4,
    "decode_knee": 2.0,
}
Make = Callable[..., World]


@pytest.fixture(scope="module")
def make(model: TraceModel, residual: Residual, step_law: StepLaw) -> Make:
    coarse_law = CoarseLaw(**step_law.to_json())

    def build(
        preset: str = "full",
        limits: str | EngineLimits = "scarce",
        *,
        n: int = 20,
        seed: int = 0,
        coarse: bool = False,
        quantum: int | None = None,
        **changes: object,
    ) -> World:
        found = dataclasses.replace(get_preset(preset), sparse_min_context=20)
        if quantum is not None:
            found = dataclasses.replace(found, quantum_tokens=quantum)
        rng = np.random.default_rng(seed)
        arrivals = arrivals_of(rng, len(model.slices), n, grid_ns=GRID_NS if coarse else 1)
        lengths = {a.request.request_id: a.output_tokens for a in arrivals}
        world = World(
            model=model,
            residual=residual,
            preset=found,
            limits=limits if isinstance(limits, EngineLimits) else LIMITS[limits],
            step_law=coarse_law if coarse else step_law,
            arrivals=arrivals,
            oracle=lengths if found.priority.oracle else None,
        )
        return dataclasses.replace(world, **changes)

    return build


def assert_all_modes_agree(world: World) -> Outcome:
    online = serve(world, "online")
    for mode in ("steps", "calls", "macro"):
        assert_same(online, serve(world, mode))
    return online


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("preset", [*PRESETS, *PEERS])
def test_all_modes_leave_one_ledger(preset: str, limits: str, make: Make):
    coarse = list(LIMITS).index(limits) % 2 == len(preset) % 2
    short = limits in ("scarce", "cap") and len(preset) % 3 == 0
    assert_all_modes_agree(make(preset, limits, coarse=coarse, quantum=5 if short else None))


def test_pages_cap_and_clock_bind_where_ledgers_are_compared(make: Make):
    scarce = serve(make("full", "scarce", coarse=True), "macro")
    assert scarce.server.ledger.requests["preemptions"].sum() >= 5
    assert ties(scarce) >= 5
    assert any(reason == "cancelled" for _, reason in scarce.ended)
    full = serve(make("full", "cap"), "macro")
    assert (full.server.ledger.steps["n_decode"] == 3).mean() > 0.5
    short = serve(make("full", "cap", quantum=5), "macro")
    assert short.server.ledger.requests["preemptions"].sum() >= 5
    tiny = serve(make("full", "tiny"), "macro").server.ledger
    spent = tiny.steps["prompt_tokens"] + tiny.steps["n_decode"] == 6
    assert (spent & (tiny.steps["n_decode"] >= 3)).any()  # a prefill got what decode rows left
    assert tiny.requests["max_service_gap_steps"].max() > 5


def test_a_macro_step_is_one_event_where_steps_are_many(make: Make):
    stretches = {}
    for mode in ("steps", "macro"):
        outcome = serve(make("full", "roomy"), mode)
        stretches[mode] = outcome.server.stretches
    assert stretches["macro"] < 0.5 * stretches["steps"]
    assert stretches["steps"] == outcome.server.ledger.step_count


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    preset=st.sampled_from([*PRESETS, *PEERS]),
    max_seqs=st.integers(1, 6),
    budget=st.integers(0, 60),
    n_pages=st.integers(10, 40),
    quantum=st.sampled_from([None, 1, 3, 16]),
    coarse=st.booleans(),
    skewed=st.booleans(),
    scored=st.booleans(),
)
def test_any_small_world_is_served_alike(
    make: Make,
    *,
    seed: int,
    preset: str,
    max_seqs: int,
    budget: int,
    n_pages: int,
    quantum: int | None,
    coarse: bool,
    skewed: bool,
    scored: bool,
):
    limits = EngineLimits(
        max_seqs=max_seqs, token_budget=max_seqs + budget, n_pages=n_pages, max_context=512
    )
    world = make(preset, n=8, seed=seed, coarse=coarse, quantum=quantum, limits=limits)
    if skewed:
        law = dataclasses.replace(world.step_law, per_skewed_kv_token_s=3e-5)
        world = dataclasses.replace(world, step_law=law)
    if scored:
        world = dataclasses.replace(world, step_law=dataclasses.replace(world.step_law, **SCORED))
    assert_all_modes_agree(world)


@pytest.mark.parametrize("limits", ["scarce", "tiny"])
def test_scored_pages_cost_time_in_all_modes_alike(limits: str, make: Make):
    free = make("attention", limits)
    law = dataclasses.replace(free.step_law, **SCORED)
    steps = assert_all_modes_agree(dataclasses.replace(free, step_law=law)).server.ledger.steps
    scored = steps["pages_scored"]
    assert (scored > 0).any()
    least_s = law.base_s + np.where(scored > 0, 3e-3, 0.0) + 7e-6 * scored
    assert (steps["duration_ns"] >= 1e9 * least_s - 1).all()
    assert serve(free, "macro").server.ledger.steps["duration_ns"].sum() < (
        steps["duration_ns"].sum()
    )


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("preset", ["full", "seed", "attention"])
def test_a_request_switched_off_midway_goes_on_at_baseline(
    preset: str, *, coarse: bool, make: Make
):
    world = make(preset, coarse=coarse)
    rng = np.random.default_rng(4)
    when = {
        a.request.request_id: a.arrival_ns + int(rng.integers(0, 80)) * GRID_NS
        for a in world.arrivals[::2]
    }
    world = dataclasses.replace(world, disable_ns=when)
    switched = assert_all_modes_agree(world).server.ledger.tokens["coverage"]
    never = serve(dataclasses.replace(world, disable_ns={}), "macro")
    plain = never.server.ledger.tokens["coverage"]
    assert (switched < 1.0).sum() < (plain < 1.0).sum()


@pytest.mark.parametrize("ms", [1, 100, 300, 600])
def test_a_crash_loses_the_unfinished_and_the_step_in_flight(ms: int, make: Make):
    world = make("full", "scarce", coarse=True, crash_ns=ms * 1_000_000)
    online = assert_all_modes_agree(world)
    ledger = online.server.ledger
    lost = [i for i, row in ledger.row_of.items() if ledger.reasons[row] == "lost"]
    assert online.lost == lost
    assert ms == 1 or lost


@pytest.mark.parametrize("ms", [1, 50, 333])
@pytest.mark.parametrize("limits", ["roomy", "scarce"])
def test_a_run_stopped_midway_has_the_rows_so_far(ms: int, limits: str, make: Make):
    online = assert_all_modes_agree(make("best", limits, coarse=True, until_ns=ms * 1_000_000))
    assert ms == 1 or online.server.ledger.counts()["unfinished"] > 0


@pytest.mark.parametrize("preset", ["full", "ltr"])
def test_totals_without_rows_are_those_of_the_loop(preset: str, make: Make):
    world = make(preset, "scarce", record_tokens=False, record_steps=False)
    online = serve(world, "online").server.ledger.totals
    for mode in ("steps", "calls", "macro"):
        found = serve(world, mode).server.ledger
        assert len(found.tokens) == len(found.steps) == 0
        totals = found.totals
        assert totals.n_steps == online.n_steps
        assert totals.end_ns == online.end_ns
        for name in ("duration_ns", "n_decode", "prompt_tokens", "pages_held", "preempted"):
            assert totals.sum(name) == online.sum(name), name
        assert np.array_equal(totals.held_ns, online.held_ns)
        assert totals.gaps.n == online.gaps.n > 100
        assert totals.gaps.sum_ns == online.gaps.sum_ns
        assert np.array_equal(totals.gaps.counts, online.gaps.counts)
        order, theirs = (np.argsort(t.requests["request_id"]) for t in (totals, online))
        for name in ("request_id", "tokens", "tau", "tau_cal", "net", "nll", "on_bound"):
            np.testing.assert_allclose(
                totals.requests[name][order], online.requests[name][theirs], rtol=1e-6, atol=1e-6
            )


def test_what_needs_the_loop_is_refused(make: Make):
    world = make("full", n=1)
    evicting = dataclasses.replace(world.preset, kv_budget_pages=16)
    with pytest.raises(ValueError, match="kv_budget_pages=16"):
        serve(dataclasses.replace(world, preset=evicting), "macro")
    shared = dataclasses.replace(world.arrivals[0], page_hashes=(1, 2))
    with pytest.raises(ValueError, match="page_hashes=2"):
        serve(dataclasses.replace(world, arrivals=[shared]), "macro")
    with pytest.raises(ValueError, match="mode='fast'"):
        serve(world, "fast")


def test_a_plan_made_for_nobody_counts_as_one(make: Make):
    world = make("full", "roomy", n=3, coarse=True)
    alone, then, last = (
        dataclasses.replace(a, arrival_ns=i * GRID_NS * 10_000, cancel_ns=None)
        for i, a in enumerate(world.arrivals)
    )
    gone = dataclasses.replace(then, cancel_ns=then.arrival_ns)  # before it could wake the server
    online = assert_all_modes_agree(dataclasses.replace(world, arrivals=[alone, gone, last]))
    steps = online.server.ledger.steps["step"]
    assert np.diff(steps).max() == 2
