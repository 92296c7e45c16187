"""Routing by expected work: what past requests of a class took, and what its entropy lets skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.serving.ledger import COMPLETED, Ledger
from controllers.serving.request import Request
from simulator.arrival import Arrival
from simulator.cluster_fleet import Member
from simulator.routers_base import Kept, Router

PRIOR = 4.0  # requests that a class's first guess counts for
BATCH = 16  # completed requests of a server that are learnt from at once: reading ledgers costs


@dataclass(slots=True)
class _Class:
    """What finished requests of one task class were like."""

    finished: int = 0
    tokens: int = 0
    coverage_sum: float = 0.0
    coverage_rows: int = 0


class ExpectedWork(Router):
    """The server with the least expected work, in modelled seconds of its own step law.

    A request's work is what it adds to the steps it shares: its prompt, then one row per expected
    output token, whose KV read is weighted by ``kept``. The expected output is the mean of finished
    requests of its task class, shrunk towards its own prediction (without one, half its cap) by
    ``PRIOR`` requests. Without ``kept`` every row is dense (``expected_work``). With it
    (``entropy_aware``) a row reads the share that the class's mean coverage keeps: coverage is the
    output of the entropy law, so a class whose entropy is low is expected to be cheaper. Work is
    credited back in full when a request leaves; progress in between is not seen. What completed
    requests were like is learnt ``BATCH`` at a time, per server.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept
        self._classes: dict[str, _Class] = {}
        self._work: dict[int, float] = {}  # by server
        self._owed: dict[int, float] = {}  # by request: what was added for it
        self._shares: dict[str, float] = {}
        self._unread: dict[int, list[Request]] = {}  # by server: who left it

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the server whose work, with the request's, is least."""
        loads = [self._work.get(m.number, 0.0) + self.expected_s(m, arrival) for m in members]
        return loads.index(min(loads))

    def placed(self, member: Member, arrival: Arrival) -> None:
        """Charge the request's expected work to its server."""
        work = self.expected_s(member, arrival)
        self._owed[arrival.request.request_id] = work
        self._work[member.number] = self._work.get(member.number, 0.0) + work

    def left(self, member: Member, arrival: Arrival) -> None:
        """Credit the work back; learn from ledger rows now and then."""
        request, server = arrival.request, member.server
        work = self._owed.pop(request.request_id)
        busy = server.n_running + server.n_waiting > 0
        self._work[member.number] = max(0.0, self._work[member.number] - work) if busy else 0.0
        unread = self._unread.setdefault(member.number, [])
        unread.append(request)
        if len(unread) >= BATCH:
            ledger = server.ledger
            for one in unread:
                self._learn(ledger, one)
            unread.clear()

    def _learn(self, ledger: Ledger, request: Request) -> None:
        row = ledger.row_of[request.request_id]
        if ledger.reasons[row] not in COMPLETED:
            return
        columns = ledger.requests.columns
        known = self._classes.setdefault(request.task_class, _Class())
        known.finished += 1
        known.tokens += int(columns["tokens"][row])
        known.coverage_sum += columns["coverage_sum"][row]
        known.coverage_rows += int(columns["coverage_rows"][row])
        self._shares.pop(request.task_class, None)

    def expected_s(self, member: Member, arrival: Arrival) -> float:
        """Return what a request is expected to add to a server's steps, seconds."""
        request, law = arrival.request, member.step_law
        prompt = request.prompt_tokens
        prompt_s = law.per_prompt_token_s * prompt + law.per_prompt_square_s * prompt**2
        if member.role == "prefill":
            return prompt_s
        known = self._classes.get(request.task_class, _Class())
        guess = request.predicted_tokens or request.max_tokens / 2
        length = (known.tokens + PRIOR * guess) / (known.finished + PRIOR)
        length = min(length, request.max_tokens)
        kv = self._share(request.task_class, known) * (prompt + length / 2)
        output_s = length * (law.per_decode_s + law.per_kv_token_s * kv)
        return output_s if member.role == "decode" else prompt_s + output_s

    def _share(self, task_class: str, known: _Class) -> float:
        if self._kept is None or known.coverage_rows == 0:
            return 1.0
        share = self._shares.get(task_class)
        if share is None:
            share = self._kept(known.coverage_sum / known.coverage_rows)
            self._shares[task_class] = share
        return share
