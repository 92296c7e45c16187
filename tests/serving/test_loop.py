"""What the loop refuses, and how requests end."""

from __future__ import annotations

import dataclasses

import pytest

from controllers.serving.loop import ServingLoop
from controllers.serving.watchdog import Livelock
from tests.serving.worlds import STEP_LAW, FakeExecutor, World, limits, preset, request, world


def test_a_request_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"<= max_context = 40; got prompt_tokens=38"):
        world().submit(request(0, prompt=38, length=3))


def test_a_request_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool of n_pages = 5; got pages_needed=6"):
        world(n_pages=5).submit(request(0, prompt=20, length=4))


def test_an_id_is_never_used_twice() -> None:
    w = world()
    w.submit(request(7, length=1))
    w.run()
    with pytest.raises(ValueError, match="request_id is already used; got request_id=7"):
        w.submit(request(7))


def test_a_refused_request_leaves_no_trace() -> None:
    w = world()
    with pytest.raises(ValueError, match="max_context"):
        w.submit(request(0, prompt=40, length=3))
    assert not w.loop.has_work
    assert w.loop.ledger.counts()["submitted"] == 0


def test_a_plan_must_be_observed_before_the_next() -> None:
    w = world()
    w.submit(request(0))
    w.loop.plan(0)
    with pytest.raises(RuntimeError, match="step 0 is planned and not yet observed"):
        w.loop.plan(0)


def test_a_result_of_another_step_is_refused() -> None:
    w = world()
    w.submit(request(0))
    plan = w.loop.plan(0)
    result = w.executor.execute(plan, w.loop.pages(plan))
    with pytest.raises(ValueError, match="result must be of step 0; got step=5"):
        w.loop.observe(dataclasses.replace(result, step=5), 0)
    with pytest.raises(ValueError, match=r"must have 1 lanes.*tokens=0"):
        w.loop.observe(dataclasses.replace(result, tokens=()), 0)
    assert w.loop.observe(result, 0) == ()


def test_time_does_not_run_back() -> None:
    w = world()
    w.loop.plan(10)
    with pytest.raises(ValueError, match="time must not run back from 10; got now_ns=9"):
        w.loop.plan(9)


def test_requests_end_with_the_reason_of_whoever_knows() -> None:
    w = world()
    w.submit(request(0, length=3), request(1), request(2, length=30))
    w.step()
    plan = w.loop.plan(w.now_ns)
    result = w.executor.execute(plan, w.loop.pages(plan))
    lane = plan.sampled.index(1)
    tokens = tuple(-1 if i == lane else t for i, t in enumerate(result.tokens))
    failed = dataclasses.replace(result, tokens=tokens, finished={1: "nonfinite_logits"})
    w.now_ns += failed.duration_ns
    assert w.loop.observe(failed, w.now_ns) == (1,)
    w.loop.cancel(2, w.now_ns)
    w.run()
    assert w.loop.ledger.reasons == ["length", "nonfinite_logits", "cancelled"]
    counts = {"completed": 1, "cancelled": 1, "failed": 1, "unfinished": 0, "submitted": 3}
    assert w.loop.ledger.counts() == counts


def test_a_stop_token_ends_a_request() -> None:
    w = world(stop_share=1.0)
    w.submit(request(0))
    w.run()
    assert w.loop.ledger.reasons == ["stop"]
    assert w.loop.ledger.requests["tokens"].tolist() == [1]


def test_unknown_requests_cannot_be_cancelled_or_disabled() -> None:
    w = world()
    assert not w.loop.cancel(1, 0)
    assert not w.loop.disable(1, 0)


def test_a_loop_that_cannot_move_names_the_request() -> None:
    loop = ServingLoop(limits(), preset(), STEP_LAW, livelock_plans=5)
    World(loop, FakeExecutor()).submit(request(9))
    loop.scheduler.pool.allocate(12)  # pages somebody leaked
    for now_ns in range(4):
        assert loop.plan(now_ns).rows == ()
    with pytest.raises(Livelock, match="request 9 waits"):
        loop.plan(4)


def test_idle_plans_are_not_a_livelock() -> None:
    loop = ServingLoop(limits(), preset(), STEP_LAW, livelock_plans=2)
    assert [loop.plan(now_ns).rows for now_ns in range(9)] == [()] * 9
