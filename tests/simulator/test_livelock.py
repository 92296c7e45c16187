"""Loads on which simulators have been seen to spin: here each ends, or ends in a typed error.

The shapes are those reported for BLIS: inference-sim issues 297 and 373 (a pool smaller than a
request), 568 (a prompt that fits and an output that does not), 349 (every arrival preempts), 529
(residents that lose everything to each other), 963 and 1061 (a head of the queue that never fits),
569 (a step that takes no time).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.presets import PRESETS, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.scheduler import Grants, Scheduler
from controllers.serving.watchdog import Livelock
from controllers.steplaw import StepLaw
from simulator import ClusterConfig, Residual, SimulationResult, TraceModel, run_workload
from simulator.array_engine import Engine
from simulator.array_life import Chunk
from tests.serving.worlds import STEP_LAW, ByTask, FakeExecutor, World, limits, preset, request
from tests.simulator.queues import EVEN, MODES, workload

TOTAL = 96  # tokens of the longest request, prompt and output: 6 pages
FREE = StepLaw(**dict.fromkeys((f.name for f in dataclasses.fields(StepLaw)), 0.0))


def config(mode: str, name: str = "baseline", law: StepLaw = EVEN, **changes: int) -> ClusterConfig:
    tight = {"max_seqs": 4, "token_budget": 32, "n_pages": 7, "max_context": TOTAL}
    return ClusterConfig(
        preset=dataclasses.replace(get_preset(name), sparse_min_context=1),
        limits=EngineLimits(**(tight | changes)),
        step_law=law,
        bytes_per_page_unit=1,
        mode=mode,
    )


class Serve:
    """Runs requests of these lengths, all invariants checked after every step."""

    def __init__(self, model: TraceModel, residual: Residual) -> None:
        self._parts = model, residual

    def __call__(
        self, using: ClusterConfig, lengths: list[tuple[int, int]], gap_s: float = 0.0
    ) -> SimulationResult:
        prompts, outputs = np.array(lengths).T
        asked = workload(np.arange(len(lengths)) * gap_s, prompts, outputs)
        result = run_workload(*self._parts, asked, using, verify=True)
        assert result.ledger.counts()["completed"] == len(lengths)
        assert result.ledger.requests["tokens"].tolist() == outputs.tolist()
        return result


@pytest.fixture
def serve(model: TraceModel, residual: Residual) -> Serve:
    return Serve(model, residual)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", [(97, 1), (17, 80), (90, 20)])
def test_a_request_that_can_never_fit_is_refused(
    serve: Serve, mode: str, lengths: tuple[int, int]
) -> None:
    """Not only a prompt beyond the pool: a prompt that fits and an output that does not."""
    with pytest.raises(
        ValueError, match=r"must fit the pool of n_pages = 6; got pages_needed=[78]"
    ):
        serve(config(mode, n_pages=6, max_context=112), [(5, 5), lengths])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", [(95, 1), (1, 95), (48, 48), (80, 16)])
def test_a_request_that_fills_the_pool_exactly_completes(
    serve: Serve, mode: str, lengths: tuple[int, int]
) -> None:
    result = serve(config(mode, n_pages=6), [lengths, lengths, (3, 4), lengths])
    assert result.ledger.steps["pages_held"].max() == 6


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["baseline", "scheduling", "full", "seed"])
def test_two_requests_that_take_each_others_pages_both_complete(
    serve: Serve, mode: str, name: str
) -> None:
    """Each grows to six of seven pages, so only one can end while the other has most of none."""
    result = serve(config(mode, name), [(16, 80), (16, 80)])
    lost = result.ledger.requests["preemptions"]
    assert 0 < lost.sum() <= 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["baseline", "full"])
def test_a_pool_that_every_newcomer_overfills_serves_everybody(
    serve: Serve, mode: str, name: str
) -> None:
    """Five times what the pool can bear, and every admission is one that somebody pays for."""
    result = serve(config(mode, name), [(14 + i % 3, 40) for i in range(16)], gap_s=5e-3)
    assert result.metrics["preemptions"] > 16


@pytest.mark.parametrize("mode", MODES)
def test_a_long_head_of_the_queue_is_not_passed_for_ever(serve: Serve, mode: str) -> None:
    """It needs nearly all of the pool, and small ones keep coming."""
    small = [(5, 6)] * 60
    result = serve(config(mode, n_pages=7), [*small[:4], (90, 6), *small], gap_s=1e-3)
    first = result.ledger.requests["first_scheduled_ns"]
    assert np.all(first[5:] >= first[4])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quantum", [1, 2])
def test_a_quantum_of_a_token_makes_progress(serve: Serve, mode: str, quantum: int) -> None:
    """Residents are displaced as soon as they have sampled, and recompute all when they return."""
    using = config(mode, n_pages=6)
    by_wait = dataclasses.replace(using.preset, quantum_tokens=quantum, priority=ByTask(kappa=1.0))
    result = serve(dataclasses.replace(using, preset=by_wait), [(40, 20)] * 4)
    assert result.metrics["preemptions"] > 60 / quantum


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_costs_nothing_still_takes_time(serve: Serve, mode: str) -> None:
    result = serve(config(mode, law=FREE), [(20, 20)] * 5)
    assert result.ledger.steps["duration_ns"].min() >= 1


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_no_preset_lives_on_a_pool_of_one_request_alone(serve: Serve, name: str) -> None:
    mode = "online" if get_preset(name).kv_budget_pages is not None else "macro"
    serve(config(mode, name, n_pages=6), [(30, 40), (60, 30), (10, 60), (50, 46)], gap_s=2e-3)


class Thrashing(Scheduler):
    """Takes its pages from every resident that is not yet decoding, each second step."""

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        thrown = [s for s in self.running.values() if s.computed and not s.decoding]
        for sequence in thrown:
            self._preempt(sequence, now_ns)
        grants, preempted = super().schedule(now_ns)
        lost = tuple(s.request.request_id for s in thrown if s.request.request_id not in grants)
        return grants, (*lost, *preempted)


def test_a_scheduler_that_computes_and_loses_it_again_is_named() -> None:
    """Rows run in every plan, the clock moves, and no token ever comes: a livelock all the same."""
    loop = ServingLoop(limits(), preset(), STEP_LAW, livelock_plans=20, scheduler_type=Thrashing)
    made = World(loop, FakeExecutor())
    made.submit(request(4, 3, 2), request(7, 30, 2))
    with pytest.raises(Livelock, match=r"request 7 lost its pages \d+ times: 2\d plans in a row"):
        made.run(200)
    assert list(loop.sequences) == [7]
    assert loop.ledger.requests["tokens"].tolist() == [2, 0]


@pytest.mark.parametrize("mode", ["macro", "steps"])
def test_prompts_that_are_computed_and_lost_again_are_named_in_array_modes(
    serve: Serve, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Engine._continue

    def lose(self: Engine, budget: int) -> tuple[list[Chunk], int]:
        here = self.residents
        for life in [one for one in here.prefilling.values() if one.sequence.computed]:
            before = life.outstanding
            here.scheduler._preempt(life.sequence, self.end_ns)
            del here.prefilling[life.request_id]
            here.prefill_pages -= life.held
            here.outstanding += life.outstanding - before
            here._preempted(life, self.end_ns)
        return go_on(self, budget)

    monkeypatch.setattr(Engine, "_continue", lose)
    with pytest.raises(Livelock, match=r"request 0 lost its pages \d+ times: \d+ plans in a row"):
        serve(config(mode), [(90, 5)])


def test_a_prompt_of_many_chunks_is_no_livelock() -> None:
    loop = ServingLoop(limits(token_budget=4), preset(), STEP_LAW, livelock_plans=1)
    made = World(loop, FakeExecutor())
    made.submit(request(0, 38, 2), request(1, 30, 2))
    made.run(60)
    assert loop.ledger.counts()["completed"] == 2


def test_users_who_give_up_before_their_first_token_are_no_livelock() -> None:
    loop = ServingLoop(limits(token_budget=4), preset(), STEP_LAW, livelock_plans=4)
    made = World(loop, FakeExecutor())
    for i in range(40):
        made.submit(request(i, 30, 2))
        made.step()
        made.step()
        loop.cancel(i, made.now_ns)
    assert loop.ledger.counts()["cancelled"] == 40
