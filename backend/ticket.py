"""One request on its way through the worker: what it brought, and what was measured on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from backend.channel import Channel
from backend.engine import Generation
from backend.params import Delta, Metrics, Output
from backend.stops import Reply
from controllers.serving.ledger import NEVER, Ledger
from controllers.serving.messages import Result
from controllers.serving.request import Request

NS_PER_S = 1e9


@dataclass(slots=True)
class Ticket:
    """A request, its reader's channel, and sums over its tokens."""

    request: Request
    prompt: tuple[int, ...]
    reply: Reply
    channel: Channel
    arrived_ns: int
    streams: bool  # whether somebody reads its deltas
    tokens: int = 0
    _sums: dict[str, float] = field(default_factory=dict)

    def take(
        self, result: Result, lane: int, *, coverage: float, shadow_coverage: float | None
    ) -> Delta:
        """Count the token of ``lane`` and return it with the text it released."""
        delta = Delta(
            text=self.reply.take(),
            token_id=result.tokens[lane],
            entropy_nats=float(result.h_applied[lane]),
            temperature=math.exp(result.commands[lane]),
            coverage=coverage,
            surprisal_nats=float(result.surprisal[lane]),
        )
        self.tokens += 1
        self._add("entropy_nats", delta.entropy_nats)
        self._add("temperature", delta.temperature)
        self._add("coverage", delta.coverage)
        self._add("nll_nats", delta.surprisal_nats)
        if result.shadow is not None:
            self._add("shadow_temperature", math.exp(result.shadow[lane]))
        if shadow_coverage is not None:
            self._add("shadow_coverage", shadow_coverage)
        return delta

    def output(self, generation: Generation, ledger: Ledger, reason: str) -> Output:
        """Return the finished reply."""
        return Output(
            request_id=self.request.request_id,
            text=self.reply.text,
            token_ids=generation.tokens,
            finish_reason=reason,
            stop_reason=self.reply.stop_reason,
            prompt_tokens=self.request.prompt_tokens,
            metrics=self._metrics(generation, ledger),
        )

    def _add(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def _mean(self, name: str) -> float | None:
        return self._sums[name] / self.tokens if name in self._sums else None

    def _metrics(self, generation: Generation, ledger: Ledger) -> Metrics:
        nats, scored = generation.prompt
        columns, row = ledger.requests.columns, ledger.row_of[self.request.request_id]
        arrival, first = columns["arrival_ns"][row], columns["first_token_ns"][row]
        finish = columns["finish_ns"][row]
        later = self.tokens - 1
        return Metrics(
            ttft_s=None if first == NEVER else (first - arrival) / NS_PER_S,
            tpot_s=(finish - first) / NS_PER_S / later if later > 0 else None,
            e2e_s=(finish - arrival) / NS_PER_S,
            entropy_nats=self._mean("entropy_nats"),
            temperature=self._mean("temperature"),
            coverage=self._mean("coverage"),
            nll_nats=self._mean("nll_nats"),
            shadow_temperature=self._mean("shadow_temperature"),
            shadow_coverage=self._mean("shadow_coverage"),
            prefix_hit_tokens=columns["prefix_hit_tokens"][row],
            prompt_nll_nats=nats / scored if scored else None,
            preemptions=columns["preemptions"][row],
            pages_evicted=columns["pages_evicted"][row],
        )
