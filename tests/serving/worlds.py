"""Small worlds for the tests of the serving core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core import LoadSignal
from controllers.presets import Preset, get_preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan
from controllers.serving.request import Request
from reports.verify.fake_executor import MS, STEP_LAW, FakeExecutor, uniform

__all__ = ["MS", "STEP_LAW", "ByTask", "FakeExecutor", "World", "uniform"]


def limits(**changes: int) -> EngineLimits:
    """Limits small enough that slots, pages and budget all bind."""
    base = {
        "max_seqs": 4,
        "token_budget": 16,
        "n_pages": 12,
        "max_context": 40,
        "page_tokens": 4,
    }
    return EngineLimits(**{**base, **changes})


def request(request_id: int, prompt: int = 5, length: int = 8, **changes: object) -> Request:
    return Request(request_id=request_id, prompt_tokens=prompt, max_tokens=length, **changes)


def preset(name: str = "baseline", **changes: object) -> Preset:
    base = get_preset(name)
    fields = {key: getattr(base, key) for key in Preset.__dataclass_fields__}
    return Preset(**{**fields, "sparse_min_context": 0, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTask:
    """Priority = prompt length if ``weight``, plus ``kappa`` per second of wait."""

    weight: float = 0.0
    kappa: float = 0.0
    reserves: bool = True
    oracle: bool = False

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], np.ndarray]:
        # Pages in all stand for the length of the prompt while nothing is generated.
        pages = signal.pages_held + signal.pages_needed
        return state, np.float32(self.weight) * pages + np.float32(self.kappa) * signal.wait_s


@dataclass
class World:
    """A loop, its executor and a clock."""

    loop: ServingLoop
    executor: FakeExecutor
    now_ns: int = 0
    oracle: dict[int, int] | None = None  # the loop's, filled as requests come

    def submit(self, *requests: Request) -> None:
        for r in requests:
            if self.oracle is not None:
                self.oracle[r.request_id] = self.executor.length_of(r)
            self.loop.submit(r, self.now_ns)
            self.executor.requests[r.request_id] = r

    def disable(self, request_id: int) -> None:
        if self.loop.disable(request_id, self.now_ns):
            self.executor.requests[request_id] = self.loop.sequences[request_id].request

    def step(self) -> Plan:
        """Plan, execute, observe, checking every invariant at both ends."""
        plan = self.loop.plan(self.now_ns)
        self.loop.check()
        if plan.rows:
            result = self.executor.execute(plan, self.loop.pages(plan))
            self.now_ns += result.duration_ns
            self.loop.observe(result, self.now_ns)
            self.loop.check()
        return plan

    def run(self, steps: int = 2000) -> list[Plan]:
        plans = []
        while self.loop.has_work and len(plans) < steps:
            plans.append(self.step())
        return plans


def world(
    using: Preset | None = None, seed: int = 0, stop_share: float = 0.0, **changes: object
) -> World:
    """A world under ``using``; other keywords go to ``limits``, except ``sink``."""
    using = preset() if using is None else using
    sink = changes.pop("sink", None)
    oracle = {} if using.priority.oracle else None
    loop = ServingLoop(limits(**changes), using, STEP_LAW, sink=sink, oracle=oracle)
    executor = FakeExecutor(seed=seed, stop_share=stop_share, law=using.temperature)
    return World(loop, executor, oracle=oracle)


def crowded(**levels: bool) -> Ledger:
    """Serve 40 requests of several lengths, some preempted, some cut off at the end."""
    w = world(n_pages=12, max_seqs=3)
    w.loop.ledger = Ledger(**levels)
    for i in range(40):
        w.submit(request(i, 5 + i % 9, 2 + i % 11))
    w.run(80)
    assert w.loop.has_work
    assert sum(w.loop.ledger.requests["preemptions"]) > 0
    return w.loop.ledger
