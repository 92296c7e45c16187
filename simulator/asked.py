"""Requests as columns: what decides their tokens, and nothing of when they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.serving.request import Request
from simulator.arrival import NONE, Arrival, ArrivalTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """``R`` requests, int64 ``[R]`` each, and which recorded request answers for each."""

    ids: np.ndarray
    prompt_tokens: np.ndarray
    max_tokens: np.ndarray
    trace_index: np.ndarray
    output_tokens: np.ndarray  # true lengths; ``NONE``: as recorded
    kind: np.ndarray  # int [R], the one of ``kinds`` that asks for the same control
    kinds: Sequence[Request]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls,
        requests: Sequence[Request],
        trace_index: Sequence[int],
        output_tokens: Sequence[int | None],
    ) -> Asked:
        """Gather requests, their recorded ones and their true lengths, None for as recorded."""
        kinds: dict[tuple[object, ...], Request] = {}
        places: dict[tuple[object, ...], int] = {}
        kind = []
        for r in requests:
            asks = (r.target_nats, r.temperature, r.one_sided, r.enabled, r.min_coverage)
            kinds.setdefault(asks, r)
            kind.append(places.setdefault(asks, len(places)))
        lengths = [NONE if tokens is None else tokens for tokens in output_tokens]
        return cls(
            ids=np.array([r.request_id for r in requests], np.int64),
            prompt_tokens=np.array([r.prompt_tokens for r in requests], np.int64),
            max_tokens=np.array([r.max_tokens for r in requests], np.int64),
            trace_index=np.asarray(trace_index, np.int64),
            output_tokens=np.array(lengths, np.int64),
            kind=np.array(kind, np.intp),
            kinds=tuple(kinds.values()),
        )

    @classmethod
    def arriving(cls, arrivals: Sequence[Arrival], first: int, end: int) -> Asked:
        """Gather ``arrivals[first:end]``; from a table, without making its requests."""
        if not isinstance(arrivals, ArrivalTable):
            some = arrivals[first:end]
            return cls.of(
                [arrival.request for arrival in some],
                [arrival.trace_index for arrival in some],
                [arrival.output_tokens for arrival in some],
            )
        columns = {
            name: getattr(arrivals.columns, name)[first:end]
            for name in ("prompt_tokens", "max_tokens", "trace_index", "output_tokens")
        }
        answering, kind = np.unique(columns["trace_index"], return_inverse=True)
        return cls(
            ids=np.arange(first, first + len(kind)),
            kind=kind,
            kinds=[arrivals.templates[index] for index in answering.tolist()],
            **columns,
        )

    def taken(self, order: np.ndarray) -> Asked:
        """Return the requests ``order``, in that order."""
        names = ("ids", "prompt_tokens", "max_tokens", "trace_index", "output_tokens", "kind")
        return Asked(kinds=self.kinds, **{name: getattr(self, name)[order] for name in names})

    def each(self, name: str, dtype: Any) -> np.ndarray:
        """Return a field of every request that is the same within a kind, ``[R]``."""
        return np.array([getattr(kind, name) for kind in self.kinds], dtype)[self.kind]
