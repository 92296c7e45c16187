"""Who asks for what, and when: requests drawn from a trace, times from a process or a recording."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from controllers.serving.request import Request
from simulator.arrival import NONE, Arrival, ArrivalTable

if TYPE_CHECKING:
    from traces.header import RecordedRequest
    from traces.store import Trace

__all__ = ["NS_PER_S", "Arrival", "Asking", "Workload", "poisson_workload", "workload_at"]

NS_PER_S = 1_000_000_000
LONGEST_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Arrivals in time order, follow-ups after what they follow, and what had to be stretched."""

    arrivals: Sequence[Arrival]  # a tuple, or an ``ArrivalTable`` that makes them when asked
    empty_recordings: int = 0  # recorded requests without a token, never drawn
    caveats: Mapping[str, int] = field(default_factory=dict)  # what a join had to do, by name

    def __post_init__(self) -> None:
        if isinstance(self.arrivals, ArrivalTable):  # which has checked its columns
            return
        times = [arrival.arrival_ns for arrival in self.arrivals if arrival.after is None]
        require(times == sorted(times), "arrivals must be in time order", arrivals=len(times))
        seen: set[int] = set()
        for arrival in self.arrivals:
            after, request_id = arrival.after, arrival.request.request_id
            require(request_id not in seen, "request ids must be distinct", request_id=request_id)
            require(
                after is None or after in seen,
                "a follow-up must come after the request it follows",
                request_id=request_id,
                after=after,
            )
            seen.add(request_id)

    def column(self, name: str) -> np.ndarray:
        """Return a field of every arrival, int64 ``[n]``, -1 where it is None, in their order.

        ``name`` is an integer field of ``Arrival``, or ``"request_id"``, ``"prompt_tokens"``,
        ``"max_tokens"`` of its request. Free where the arrivals are a table.
        """
        if isinstance(self.arrivals, ArrivalTable):
            if name == "request_id":
                return np.arange(len(self.arrivals))
            return getattr(self.arrivals.columns, name)
        asked = name in ("request_id", "prompt_tokens", "max_tokens")
        values = [getattr(a.request if asked else a, name) for a in self.arrivals]
        return np.array([NONE if value is None else value for value in values], np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What every request of a workload asks for, beyond its recording.

    Each task class is one client. The prediction of a length is the mean of the other recordings
    of its class, which knows the class and nothing of the request.
    """

    target_nats: float = 1.0
    max_tokens: int | None = None  # None: the longest recorded output of the request's class
    first_token_slo_s: float = 10.0
    one_sided: bool = False
    enabled: bool = True
    cancel_share: float = 0.0  # share of requests whose user gives up
    patience_s: float = 1.0  # mean of the exponential time to giving up

    def __post_init__(self) -> None:
        require(
            self.max_tokens is None or self.max_tokens >= 1,
            "max_tokens must be >= 1",
            max_tokens=self.max_tokens,
        )
        require(
            0.0 <= self.cancel_share <= 1.0,
            "cancel_share must lie in [0, 1]",
            got=self.cancel_share,
        )
        require(
            math.isfinite(self.patience_s) and self.patience_s > 0.0,
            "patience_s must be finite and > 0",
            patience_s=self.patience_s,
        )


def poisson_workload(
    trace: Trace, *, rate_per_s: float, n_requests: int, seed: int, asking: Asking | None = None
) -> Workload:
    """Return ``n_requests`` at Poisson times; requests and gaps come from separate streams.

    Equal seeds give the same requests in the same order at every rate, and gaps that scale with
    it: common random numbers.
    """
    require(
        math.isfinite(rate_per_s) and rate_per_s > 0.0,
        "rate_per_s must be finite and > 0",
        rate_per_s=rate_per_s,
    )
    require(n_requests >= 1, "n_requests must be >= 1", n_requests=n_requests)
    gaps = stream(seed, 0).standard_exponential(n_requests) / rate_per_s
    return workload_at(trace, times_s=np.cumsum(gaps), seed=seed, asking=asking)


def workload_at(
    trace: Trace, *, times_s: np.ndarray, seed: int, asking: Asking | None = None
) -> Workload:
    """Return one request per time in ``times_s``, seconds, ascending (an ``Arrivals.times_s``).

    Only times are taken from a recording of arrivals. The recorded requests are dealt like cards:
    a fresh seeded shuffle each time the deck runs out, so that none is served twice before all
    have been served once, and short runs still hold the recording's mix.
    """
    asking = Asking() if asking is None else asking
    deck = [i for i, record in enumerate(trace.requests) if record.output_tokens >= 1]
    require(len(deck) >= 1, "the trace needs a request with a token", requests=len(trace.requests))
    shuffle, giving_up = stream(seed, 1), stream(seed, 2)
    longest, predicted = _longest_by_class(trace.requests), _predictions(trace.requests)
    times_ns = nanoseconds(np.asarray(times_s, np.float64)).tolist()
    patience = giving_up.standard_exponential(len(times_ns)) * asking.patience_s
    gives_up = giving_up.random(len(times_ns)) < asking.cancel_share
    order: list[int] = []
    while len(order) < len(times_ns):
        order.extend(shuffle.permutation(deck).tolist())
    arrivals = []
    for request_id, when_ns in enumerate(times_ns):
        record = trace.requests[order[request_id]]
        cap = longest[record.task_class] if asking.max_tokens is None else asking.max_tokens
        gone_ns = when_ns + round(patience[request_id] * NS_PER_S)
        arrivals.append(
            Arrival(
                request=_request(request_id, record, cap, predicted[record.request], asking),
                arrival_ns=when_ns,
                trace_index=record.request,
                cancel_ns=gone_ns if gives_up[request_id] else None,
            )
        )
    return Workload(arrivals=tuple(arrivals), empty_recordings=len(trace.requests) - len(deck))


def nanoseconds(times_s: np.ndarray) -> np.ndarray:
    """Return ascending times in whole nanoseconds, int64; ``ValueError`` beyond ``LONGEST_S``."""
    end_s = float(times_s[-1]) if len(times_s) else 0.0
    require(
        end_s <= LONGEST_S,
        f"arrivals must span at most {LONGEST_S:.0e} s, what the clock in nanoseconds holds",
        span_s=end_s,
    )
    return np.rint(times_s * NS_PER_S).astype(np.int64)


def stream(seed: int, source: int) -> np.random.Generator:
    """Return the generator of one source of randomness: streams of a seed are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(source,)))


def _longest_by_class(records: tuple[RecordedRequest, ...]) -> dict[str, int]:
    longest: dict[str, int] = {}
    for record in records:
        longest[record.task_class] = max(longest.get(record.task_class, 1), record.output_tokens)
    return longest


def _predictions(records: tuple[RecordedRequest, ...]) -> dict[int, int | None]:
    """Mean output of the other recordings of a request's class, tokens; None if it has none."""
    total, count = Counter[str](), Counter[str]()
    for record in records:
        total[record.task_class] += record.output_tokens
        count[record.task_class] += 1
    predicted: dict[int, int | None] = {}
    for record in records:
        others = count[record.task_class] - 1
        rest = total[record.task_class] - record.output_tokens
        predicted[record.request] = max(1, round(rest / others)) if others else None
    return predicted


def _request(
    request_id: int, record: RecordedRequest, cap: int, predicted: int | None, asking: Asking
) -> Request:
    return Request(
        request_id=request_id,
        prompt_tokens=record.prompt_tokens,
        max_tokens=cap,
        temperature=record.temperature,
        target_nats=asking.target_nats,
        seed=record.seed,
        enabled=asking.enabled,
        one_sided=asking.one_sided,
        first_token_slo_s=asking.first_token_slo_s,
        task_class=record.task_class,
        predicted_tokens=predicted,
        client=record.task_class,
    )
