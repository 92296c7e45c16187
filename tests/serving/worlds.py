"""A fake executor and small worlds for the tests of the serving core."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from controllers.core import LoadSignal, TemperatureLaw, TokenSignal
from controllers.presets import Preset, get_preset
from controllers.serving.lanes import LaneBank
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

MS = 1_000_000  # nanoseconds
STEP_LAW = StepLaw(
    base_s=5e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-7,
    per_prompt_token_s=2e-5,
    per_prompt_square_s=1e-9,
    floor_s=6e-3,
)
STOP_TOKEN = 0


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

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], np.ndarray]:
        # Pages in all stand for the length of the prompt while nothing is generated.
        pages = signal.pages_held + signal.pages_needed
        return state, np.float32(self.weight) * pages + np.float32(self.kappa) * signal.wait_s


def uniform(*key: int) -> float:
    """A number in [0, 1) that depends on the key alone, not on when it is asked for."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass
class FakeExecutor:
    """Tokens and entropies are functions of (seed, request, position): load cannot change them."""

    seed: int = 0
    stop_share: float = 0.1
    fail_share: float = 0.0
    law: TemperatureLaw | None = None
    requests: dict[int, Request] = field(default_factory=dict)
    streams: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bank = None if self.law is None else LaneBank(self.law)

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Check that every row continues where its request stands, then make tokens up."""
        tokens, lanes = [], []
        finished: dict[int, str] = {}
        for row in plan.rows:
            self._check_row(row, pages)
            if not row.samples:
                continue
            request_id = row.request_id
            stream = self.streams.setdefault(request_id, [])
            assert row.start + row.n_tokens == self.requests[request_id].prompt_tokens + len(stream)
            draw = uniform(self.seed, request_id, len(stream))
            lanes.append(self._signal(request_id, len(stream)))
            if draw < self.fail_share:
                tokens.append(-1)
                finished[request_id] = "nonfinite_logits"
                continue
            if draw > 1.0 - self.stop_share:
                tokens.append(STOP_TOKEN)
                finished[request_id] = "stop"
            else:
                tokens.append(1 + int(draw * 1000))
            stream.append(tokens[-1])
        return self._result(plan, tokens, finished, lanes)

    def release(self, request_id: int) -> None:
        self.requests.pop(request_id, None)

    def _check_row(self, row: Row, pages: dict[int, list[int]]) -> None:
        assert row.n_tokens >= 1
        assert len(pages[row.request_id]) * 4 >= row.start + row.n_tokens

    def _signal(self, request_id: int, position: int) -> list[float]:
        r = self.requests[request_id]
        h = [4.0 * uniform(self.seed, request_id, position, k) for k in range(4)]
        on = float(r.enabled and not r.greedy)
        return [*h, h[0], r.target_nats, r.x_user, 10.0, on, position]

    def _result(
        self, plan: Plan, tokens: list[int], finished: dict[int, str], lanes: list[list[float]]
    ) -> Result:
        columns = np.array(lanes, dtype=np.float32).reshape(-1, len(TokenSignal._fields)).T
        signals = TokenSignal(*(column.copy() for column in columns))
        commands = signals.x_user.copy()
        if self.bank is not None and len(tokens):
            commands = self.bank.update(plan.sampled, signals)
        dense = sum(8 * len(plan.rows) for _ in plan.rows)
        read = sum(int(8 * len(plan.rows) * row.coverage) for row in plan.rows)
        decode = sum(row.n_tokens == 1 and row.samples for row in plan.rows)
        seconds = STEP_LAW.step_s(decode, 0, plan.prompt_tokens, 0)
        return Result(
            step=plan.step,
            tokens=tuple(tokens),
            finished=finished,
            signals=signals,
            commands=commands,
            h_applied=signals.h_in,
            surprisal=signals.surprisal,
            page_units_read=read,
            page_units_dense=dense,
            duration_ns=int(seconds * 1e9),
        )


@dataclass
class World:
    """A loop, its executor and a clock."""

    loop: ServingLoop
    executor: FakeExecutor
    now_ns: int = 0

    def submit(self, *requests: Request) -> None:
        for r in requests:
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
    loop = ServingLoop(limits(**changes), using, STEP_LAW, sink=sink)
    return World(loop, FakeExecutor(seed=seed, stop_share=stop_share, law=using.temperature))
