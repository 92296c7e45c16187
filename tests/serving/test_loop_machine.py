"""The serving loop under random arrivals, cancels and kill switches, in a pool that binds.

The executor's pages have content, so a page that is shared, kept or reclaimed wrongly is noticed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from controllers.peers import PEERS
from controllers.presets import PRESETS
from controllers.serving.messages import Plan
from controllers.serving.rows import LogRow
from controllers.serving.runlog import replay_commands, replay_plans
from tests.serving.paged import sharing
from tests.serving.worlds import MS, FakeExecutor, World, preset, request, world

MAX_REQUESTS = 12


class LoopMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[LogRow] = []
        self.submitted = 0

    @initialize(
        name=st.sampled_from(sorted({**PRESETS, **PEERS})),
        quantum=st.sampled_from([None, 1, 3]),
        n_pages=st.integers(10, 16),
        token_budget=st.integers(4, 16),
        stop_share=st.sampled_from([0.0, 0.2]),
        hashed=st.booleans(),
        kept=st.sampled_from([None, 4, 5]),
    )
    def build(
        self,
        name: str,
        quantum: int | None,
        n_pages: int,
        token_budget: int,
        stop_share: float,
        hashed: bool,  # noqa: FBT001
        kept: int | None,
    ) -> None:
        burst = 0 if kept == 4 else 1
        settings = {"quantum_tokens": quantum, "kv_budget_pages": kept, "kv_burst_pages": burst}
        self.using = preset(name, probe_every=3, **settings)
        self.world = sharing(
            world(self.using, n_pages=n_pages, token_budget=token_budget, sink=self.log.append)
        )
        self.hashed = hashed
        self.world.executor.stop_share = stop_share
        self.world.executor.fail_share = 0.02

    @precondition(lambda self: self.submitted < MAX_REQUESTS)
    @rule(
        prompt=st.integers(1, 25),
        length=st.integers(1, 15),
        temperature=st.sampled_from([0.0, 1.0]),
        client=st.sampled_from(["", "a", "b"]),
        guess=st.none() | st.integers(1, 15),
        rank=st.integers(-2, 2),
        family=st.integers(0, 2),
    )
    def submit(
        self,
        prompt: int,
        length: int,
        temperature: float,
        client: str,
        guess: int | None,
        rank: int,
        family: int,
    ) -> None:
        r = request(
            self.submitted,
            prompt,
            length,
            temperature=temperature,
            client=client,
            predicted_tokens=guess,
            priority=rank,
        )
        self.world.send(r, family, hashed=self.hashed)
        self.submitted += 1

    @precondition(lambda self: self.submitted < MAX_REQUESTS - 3)
    @rule(prompt=st.integers(8, 25), length=st.integers(9, 15), family=st.integers(0, 2))
    def submit_a_crowd(self, prompt: int, length: int, family: int) -> None:
        for more in range(4):
            r = request(self.submitted, prompt - more, length)
            self.world.send(r, family, hashed=self.hashed)
            self.submitted += 1

    @rule(wait_ms=st.integers(0, 3000))
    def wait(self, wait_ms: int) -> None:
        self.world.now_ns += wait_ms * MS

    @rule()
    def step(self) -> None:
        loop = self.world.loop
        before = set(loop.scheduler.running)
        prefilling = {i for i in before if not loop.sequences[i].decoding}
        had_work = loop.has_work
        plan = self.world.step()
        assert bool(plan.rows) == had_work, "work, and nothing runs"
        self._check_plan(plan, before, prefilling)

    @rule(request_id=st.integers(0, MAX_REQUESTS - 1))
    def cancel(self, request_id: int) -> None:
        known = request_id in self.world.loop.sequences
        assert self.world.loop.cancel(request_id, self.world.now_ns) == known

    @rule(request_id=st.integers(0, MAX_REQUESTS - 1))
    def disable(self, request_id: int) -> None:
        self.world.disable(request_id)

    @rule(request_id=st.integers(0, MAX_REQUESTS - 1))
    def cancel_while_a_step_runs(self, request_id: int) -> None:
        loop, executor = self.world.loop, self.world.executor
        plan = loop.plan(self.world.now_ns)
        if plan.rows:
            result = executor.execute(plan, loop.pages(plan))
            self.world.now_ns += result.duration_ns
            loop.cancel(request_id, self.world.now_ns)
            assert request_id not in loop.observe(result, self.world.now_ns)

    @invariant()
    def conserves_pages_and_requests(self) -> None:
        self.world.loop.check()
        assert self.world.loop.ledger.counts()["submitted"] == self.submitted

    def _check_plan(self, plan: Plan, before: set[int], prefilling: set[int]) -> None:
        limits = self.world.loop.limits
        ids = {row.request_id for row in plan.rows}
        assert sum(row.n_tokens for row in plan.rows) <= limits.token_budget
        assert len(ids) == len(plan.rows) <= limits.max_seqs
        for row in plan.rows:
            assert 0.0 < row.coverage <= 1.0
            assert row.coverage == 1.0 or (row.n_tokens == 1 and row.samples and not row.probe)
        assert set(plan.preempted) <= before
        assert before - set(plan.preempted) - prefilling <= ids, "a decode row was left out"

    def teardown(self) -> None:
        if not self.log:  # the example ended before ``build``
            return
        self.world.run()
        counts = self.world.loop.ledger.counts()
        assert counts["unfinished"] == 0
        assert self.world.loop.scheduler.pool.n_held == 0
        self._tokens_are_served_once_each()
        self._streams_do_not_depend_on_load()
        rows = [*self.log, {"kind": "end", "now_ns": self.world.now_ns, "rows": len(self.log)}]
        assert replay_plans(rows, self.using).identical
        assert replay_commands(rows, self.using).identical

    def _tokens_are_served_once_each(self) -> None:
        tokens = self.world.loop.ledger.tokens
        for request_id in np.unique(tokens["request_id"]):
            mine = tokens["position"][tokens["request_id"] == request_id]
            assert mine.tolist() == list(range(len(mine)))

    def _streams_do_not_depend_on_load(self) -> None:
        executor = self.world.executor
        for request_id, stream in executor.streams.items():
            alone = World(world(preset()).loop, FakeExecutor(stop_share=executor.stop_share))
            alone.executor.fail_share = executor.fail_share
            alone.submit(executor.requests[request_id])
            alone.run()
            assert alone.executor.streams[request_id][: len(stream)] == stream


LoopMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestServingLoopKeepsItsInvariants = LoopMachine.TestCase
