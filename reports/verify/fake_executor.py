"""An executor without a model: its tokens and entropies are functions of the request alone.

What it gives depends on (seed, request, position) and never on load, so any difference between a
crowded and an empty server is the server's doing. It refuses rows that no real cache could serve.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from controllers.core import TemperatureLaw, TokenSignal
from controllers.serving.lanes import LaneBank
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

MS = 1_000_000  # nanoseconds
PAGE_TOKENS = 4
STEP_LAW = StepLaw(
    base_s=5e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-7,
    per_prompt_token_s=2e-5,
    per_prompt_square_s=1e-9,
    floor_s=6e-3,
)
STOP_TOKEN = 0
UNCAPPED_X = 10.0
_PAGE_UNITS = 8  # pages read per row: any positive number serves


class RowRefused(AssertionError):
    """A row asks for what its cache does not hold."""


def uniform(*key: int) -> float:
    """A number in [0, 1) that depends on the key alone, not on when it is asked for."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass
class FakeExecutor:
    """Makes up tokens, stops, failures and entropies (nats in [0, 4)).

    ``stop_share`` and ``fail_share`` are the chances that a token is the last or a row fails;
    ``stop_salt`` draws other stops and leaves tokens, failures and entropies as they are.
    """

    seed: int = 0
    stop_share: float = 0.1
    fail_share: float = 0.0
    stop_salt: int = 0
    law: TemperatureLaw | None = None
    step_law: StepLaw = STEP_LAW
    requests: dict[int, Request] = field(default_factory=dict)
    streams: dict[int, list[int]] = field(default_factory=dict)
    cached: dict[int, int] = field(default_factory=dict)  # tokens in the cache, by request

    def __post_init__(self) -> None:
        self.bank = None if self.law is None else LaneBank(self.law)

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Check that every row continues where its request stands, then make tokens up."""
        for request_id in plan.preempted:
            self.cached.pop(request_id, None)
        tokens: list[int] = []
        lanes: list[list[float]] = []
        finished: dict[int, str] = {}
        for row in plan.rows:
            self._take(row, pages)
            if not row.samples:
                continue
            request_id = row.request_id
            stream = self.streams.setdefault(request_id, [])
            lanes.append(self._signal(request_id, len(stream)))
            token, reason = self._draw(request_id, len(stream))
            tokens.append(token)
            if reason:
                finished[request_id] = reason
            if token >= 0:
                stream.append(token)
        return self._result(plan, tokens, finished, lanes)

    def release(self, request_id: int) -> None:
        """Forget a finished request; its stream stays, to be compared."""
        self.requests.pop(request_id, None)
        self.cached.pop(request_id, None)

    def length_of(self, request: Request) -> int:
        """Return how many tokens ``request`` gives if nobody cancels it: what an oracle says."""
        for position in range(request.max_tokens):
            token, reason = self._draw(request.request_id, position)
            if reason:
                return position + (token >= 0)
        return request.max_tokens

    def _draw(self, request_id: int, position: int) -> tuple[int, str]:
        """Return the token at ``position`` and why it is the last one, if it is."""
        draw = uniform(self.seed, request_id, position)
        if draw < self.fail_share:
            return -1, "nonfinite_logits"
        salted = (self.stop_salt,) if self.stop_salt else ()
        if uniform(self.seed, request_id, position, *salted) > 1.0 - self.stop_share:
            return STOP_TOKEN, "stop"
        return 1 + int(draw * 1000), ""

    def _take(self, row: Row, pages: dict[int, list[int]]) -> None:
        """Move the cache of a row's request forward, or refuse."""
        request_id, end = row.request_id, row.start + row.n_tokens
        known = self.requests[request_id].prompt_tokens + len(self.streams.get(request_id, []))
        if row.n_tokens < 1 or end > known:
            raise RowRefused(f"request {request_id} has {known} tokens; the row is {row}")
        if row.samples != (end == known):
            raise RowRefused(f"a row samples at the last of {known} tokens only; the row is {row}")
        if row.start not in (0, self.cached.get(request_id, 0)):  # from 0: recomputed
            cached = self.cached.get(request_id, 0)
            raise RowRefused(f"request {request_id} has {cached} tokens cached; the row is {row}")
        if len(pages[request_id]) * PAGE_TOKENS < end:
            raise RowRefused(f"request {request_id} has no page for token {end - 1}")
        self.cached[request_id] = end

    def _signal(self, request_id: int, position: int) -> list[float]:
        r = self.requests[request_id]
        h = [4.0 * uniform(self.seed, request_id, position, k) for k in range(4)]
        on = float(r.enabled and not r.greedy)
        cap = r.x_user if r.one_sided else UNCAPPED_X
        return [*h, h[0], r.target_nats, r.x_user, cap, on, float(position)]

    def _result(
        self, plan: Plan, tokens: list[int], finished: dict[int, str], lanes: list[list[float]]
    ) -> Result:
        columns = np.array(lanes, dtype=np.float32).reshape(-1, len(TokenSignal._fields)).T
        signals = TokenSignal(*(column.copy() for column in columns))
        commands = signals.x_user.copy()
        if self.bank is not None and len(tokens):
            commands = self.bank.update(plan.sampled, signals)
        units = _PAGE_UNITS * len(plan.rows)
        decode = sum(row.n_tokens == 1 and row.samples for row in plan.rows)
        seconds = self.step_law.step_s(decode, 0, plan.prompt_tokens, 0)
        return Result(
            step=plan.step,
            tokens=tuple(tokens),
            finished=finished,
            signals=signals,
            commands=commands,
            h_applied=signals.h_in,
            surprisal=signals.surprisal,
            page_units_read=sum(int(units * row.coverage) for row in plan.rows),
            page_units_dense=units * len(plan.rows),
            duration_ns=int(seconds * 1e9),
        )
