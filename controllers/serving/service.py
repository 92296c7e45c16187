"""The service counters of the Virtual Token Counter: how much each client has been given.

A cross-lane sensor: a request's number depends on the other clients, so it cannot be a law.
Constants and lift: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024
(arXiv:2401.00588), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq

import numpy as np

from controllers.serving.request import Sequence

PROMPT_WEIGHT = 1.0  # per prompt token, charged at first admission
OUTPUT_WEIGHT = 2.0  # per output token, charged as it is given


class ServiceCounters:
    """Weighted tokens per client; a client's name is ``Request.client``.

    A client with nothing queued is lifted, when its next request comes, to the smallest counter
    of those with something queued (to that of the last one that had, if nobody has), so that it
    cannot save service up while idle. A request is charged for its prompt once, even if its KV is
    computed again after a preemption. Clients are never forgotten.
    """

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._queued: dict[str, int] = {}  # requests never admitted yet, per client with any
        self._alive: dict[str, int] = {}  # unfinished requests, per client with any
        self._last: str | None = None  # the last client whose queue ran empty

    def arrive(self, sequence: Sequence) -> None:
        """Take a request in, lifting a client that had nothing queued."""
        client = sequence.request.client
        own = self._counters.get(client, 0.0)
        if client not in self._queued:
            if self._queued:
                own = max(own, min(self._counters[other] for other in self._queued))
            elif self._last is not None:
                own = max(own, self._counters[self._last])
        self._counters[client] = own
        self._queued[client] = self._queued.get(client, 0) + 1
        self._alive[client] = self._alive.get(client, 0) + 1

    def admit(self, sequence: Sequence) -> None:
        """Charge a prompt at its first admission; later calls are free."""
        if not sequence.charged:
            request = sequence.request
            self._counters[request.client] += PROMPT_WEIGHT * request.prompt_tokens
            self._unqueue(sequence)

    def token(self, client: str) -> None:
        """Charge one output token."""
        self._counters[client] += OUTPUT_WEIGHT

    def tokens(self, clients: Iterable[str]) -> None:
        """Charge one output token to each of ``clients``, as often as each is named."""
        counters = self._counters
        for client in clients:
            counters[client] += OUTPUT_WEIGHT

    def leave(self, sequence: Sequence) -> None:
        """Let a request go, admitted or not."""
        client = sequence.request.client
        if not sequence.charged:
            self._unqueue(sequence)
        self._alive[client] -= 1
        if self._alive[client] == 0:
            del self._alive[client]

    def counters(self) -> dict[str, float]:
        """Return the counters of clients with unfinished requests, by client."""
        return {client: self._counters[client] for client in self._alive}

    def read(self, sequences: Seq[Sequence]) -> np.ndarray:
        """Return, float64 ``[B]``, what each client has had above the least served one alive.

        The k-th queued request of a client (by arrival, then id) reads the counter that its client
        will have once the earlier ones are charged: the number the published scheduler sees when
        it picks one request at a time. One client alone reads zero: there is nobody to compare.
        """
        if len(self._alive) < 2:
            return np.zeros(len(sequences))
        ahead = {client: self._counters[client] for client in self._alive}
        least = min(ahead.values())
        found = np.array([ahead[s.request.client] for s in sequences])
        order = sorted(
            (s.arrival_ns, s.request.request_id, i)
            for i, s in enumerate(sequences)
            if not s.charged
        )
        for _, _, i in order:
            request = sequences[i].request
            found[i] = ahead[request.client]
            ahead[request.client] += PROMPT_WEIGHT * request.prompt_tokens
        return found - least

    def _unqueue(self, sequence: Sequence) -> None:
        sequence.charged = True
        client = sequence.request.client
        self._queued[client] -= 1
        if self._queued[client] == 0:
            del self._queued[client]
            self._last = client
