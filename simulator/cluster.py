"""Servers behind a router: every request is placed, retried, moved or closed, exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simpy

from controllers.serving.admission import check_request
from controllers.serving.ledger import CANCELLED, NEVER
from simulator.admission import admissible
from simulator.arrival import NONE, Arrival
from simulator.cluster_agenda import Agenda, Moment
from simulator.cluster_fleet import Fleet, Machine, Member, Stage, State, fits
from simulator.cluster_keeper import Keeper
from simulator.description import ClusterPlan
from simulator.routers import RouterName, make_router
from simulator.routers_base import Router
from simulator.server import FAILED, REJECTED, TRANSFERRED, WAITED, Window
from simulator.transfer import send
from simulator.workload import NS_PER_S, Workload

__all__ = ["Cluster", "Front", "Progress", "Router", "RouterName", "make_router"]

Progress = Callable[[int, int], None]  # requests out so far, requests in all


@dataclass(frozen=True, slots=True)
class Front:
    """What the router itself did with a request: it waited there, or was closed there."""

    arrival_ns: int
    left_ns: int
    reason: str | None  # WAITED, REJECTED, FAILED, CANCELLED; None: it waits still


@dataclass(slots=True)
class _Flight:
    """A request that has arrived and is not out."""

    arrival: Arrival
    arrived_ns: int
    stage: Stage = "arrival"
    imported: bool = False  # whether the prompt's KV is on its way, or there
    retries: int = 0
    member: Member | None = None  # where it is; None: between servers
    sender: int | None = None  # machine whose link carries its KV
    placed: bool = False  # whether any server had it
    errand: int = 0  # tells the RETURN that is due from one that was overtaken


class Cluster:
    """Feeds a workload to servers and accounts for every request."""

    def __init__(
        self,
        env: simpy.Environment,
        router: Router,
        workload: Workload,
        plan: ClusterPlan,
        *,
        progress: Progress | None = None,
        on_close: Callable[[int], None] = lambda _id: None,
    ) -> None:
        """Prepare the cluster; :meth:`run` takes the fleet, whose servers call :meth:`left`.

        ``on_close`` is told of every request that ends on no server.
        """
        self.front: dict[int, Front] = {}  # by request, where the router did something
        self.retries = 0
        self.out = 0
        self.last_out_ns = 0
        self._env = env
        self._router = router
        self._workload = workload
        self._plan = plan
        self._progress = progress
        self._on_close = on_close
        self._total = len(workload.arrivals)
        self._flights: dict[int, _Flight] = {}
        self._at_router: dict[int, None] = {}  # requests that wait for a server, in order
        self._followers: dict[int, list[int]] = defaultdict(list)
        self._agenda = Agenda(env, self._act)
        self._alike = len({group.limits for group in plan.groups}) == 1
        # Whether a request that leaves concerns nobody else, but for those that follow it.
        scales = any(group.autoscale is not None for group in plan.groups)
        self._plain = not scales and type(router).left is Router.left

    def run(self, fleet: Fleet, until_ns: int | None = None) -> None:
        """Run until every request is out, or to the horizon, where some may be unfinished."""
        self._fleet = fleet
        self._keeper = Keeper(self._plan, fleet, self._agenda)
        self._schedule_arrivals()
        self._env.run(until_ns)
        left = self._total - self.out
        if until_ns is None and left:
            raise RuntimeError(f"{left} of {self._total} requests neither finished nor failed")
        for request_id, flight in self._flights.items():
            if not flight.placed:
                self.front[request_id] = Front(flight.arrived_ns, NEVER, None)
        fleet.close(self.last_out_ns if until_ns is None else until_ns)

    def left(self, request_id: int, reason: str) -> None:
        """Take note that a request left its server; servers call it, within any event."""
        if self._plain and reason != TRANSFERRED and request_id not in self._followers:
            self._out(request_id, int(self._env.now))
        else:
            self._agenda.soon(Moment.DEPARTED, request_id, reason)

    def _schedule_arrivals(self) -> None:
        """Put the arrivals and cancellations known from the start on the agenda."""
        when, gone = self._workload.column("arrival_ns"), self._workload.column("cancel_ns")
        after = self._workload.column("after")
        for index in np.flatnonzero(after != NONE).tolist():
            self._followers[int(after[index])].append(index)
        first, cancels = np.flatnonzero(after == NONE), np.flatnonzero(gone != NONE)
        kinds = [np.full(len(first), Moment.ARRIVAL), np.full(len(cancels), Moment.CANCEL)]
        self._agenda.fix(
            np.concatenate([when[first], gone[cancels]]),
            np.concatenate(kinds).astype(np.int8),
            np.concatenate([first, cancels]),
        )

    def _act(self, kind: Moment, key: int, note: object) -> None:
        if self.out == self._total:  # what machines would still do concerns nobody
            return
        match kind:
            case Moment.ARRIVAL:
                self._arrive(self._workload.arrivals[key])
            case Moment.DEPARTED:
                self._depart(key, str(note))
            case Moment.RETURN:
                flight = self._flights.get(key)
                if flight is not None and flight.errand == note:
                    self._place(key, flight)
            case Moment.CANCEL:
                self._cancel(self._workload.arrivals[key].request.request_id)
            case Moment.CRASH:
                self._crash(self._fleet.machines[key], note)
            case Moment.READY | Moment.TICK:
                if self._keeper.act(kind, key, note, int(self._env.now)):
                    self._flush()

    def _arrive(self, arrival: Arrival) -> None:
        request_id = arrival.request.request_id
        flight = _Flight(arrival, int(self._env.now))
        self._flights[request_id] = flight
        everyone = self._fleet.takers("arrival")
        members = self._fitting(arrival, everyone)
        allowed = admissible(self._plan.admission, members, everyone, len(self._at_router))
        if allowed is None:
            self._close(request_id, REJECTED)
        elif allowed:
            self._submit(request_id, flight, allowed)
        else:
            self._wait(request_id, flight)

    def _place(self, request_id: int, flight: _Flight) -> None:
        """Find a server for a request between servers, or let it wait at the router."""
        flight.sender = None
        members = self._fitting(flight.arrival, self._fleet.takers(flight.stage))
        if members:
            self._submit(request_id, flight, members)
        else:
            self._wait(request_id, flight)

    def _wait(self, request_id: int, flight: _Flight) -> None:
        """Keep a request at the router; one that no server will ever take has failed."""
        self._at_router[request_id] = None
        if not self._fleet.may_take(flight.stage, flight.arrival.request):
            self._close(request_id, FAILED)

    def _fitting(self, arrival: Arrival, members: list[Member]) -> list[Member]:
        """Return the servers that can ever serve a request; alike ones say so themselves."""
        if self._alike:
            return members
        kinds = [group.limits for group in self._plan.groups if group.limits is not None]
        if not any(fits(arrival.request, limits) for limits in kinds):
            check_request(arrival.request, max(kinds, key=lambda limits: limits.max_context))
        return [member for member in members if fits(arrival.request, member.limits)]

    def _submit(self, request_id: int, flight: _Flight, members: list[Member]) -> None:
        member = members[self._router.choose(members, flight.arrival)]
        now = int(self._env.now)
        if not flight.placed and now > flight.arrived_ns:
            self.front[request_id] = Front(flight.arrived_ns, now, WAITED)
        window = None
        if flight.stage == "decode":
            window = Window(first=1, kv_imported=flight.imported)
        elif member.role == "prefill":
            window = Window(last=1)
        flight.member, flight.placed = member, True
        member.server.submit(flight.arrival, window=window)
        self._router.placed(member, flight.arrival)

    def _depart(self, request_id: int, reason: str) -> None:
        flight = self._flights[request_id]
        member = self._forget(flight)
        machine = self._fleet.machines[member.machine]
        if reason == TRANSFERRED:
            self._move(request_id, flight, machine)
        else:
            self._out(request_id, int(self._env.now) - 1)
        if machine.state is State.DRAINING and machine.member is member and member.empty:
            self._fleet.stop(machine, int(self._env.now))

    def _forget(self, flight: _Flight) -> Member:
        """Take a request off its server; return the server."""
        member = flight.member
        assert member is not None, "a request left a server that it was not on"
        self._router.left(member, flight.arrival)
        flight.member = None
        return member

    def _move(self, request_id: int, flight: _Flight, machine: Machine) -> None:
        """Send a prompt's KV to wherever a decode server takes it."""
        transfer = self._plan.transfer
        assert transfer is not None, "only a plan with a transfer has windows"
        flight.stage, flight.imported, flight.sender = "decode", True, machine.number
        tokens = flight.arrival.request.prompt_tokens
        arrives_ns = send(transfer, machine, tokens, int(self._env.now))
        self._return(request_id, flight, arrives_ns)

    def _return(self, request_id: int, flight: _Flight, when_ns: int) -> None:
        flight.errand += 1
        when_ns = max(when_ns, int(self._env.now) + 1)
        self._agenda.at(when_ns, Moment.RETURN, request_id, flight.errand)

    def _cancel(self, request_id: int) -> None:
        flight = self._flights.get(request_id)
        if flight is None:
            return
        if flight.member is None:
            self._close(request_id, CANCELLED)
        else:
            flight.member.server.cancel(request_id)

    def _crash(self, machine: Machine, note: object) -> None:
        """Lose a machine's server; its requests, and KV on its link, start again elsewhere."""
        now = int(self._env.now)
        lost = self._keeper.crash(machine, note, now)
        if lost is None:
            return
        rules = self._plan.failures
        wait_ns = round(rules.retry_after_s * NS_PER_S)
        for request_id in lost:
            flight = self._flights[request_id]
            self._forget(flight)
            flight.imported = False
            if flight.retries == rules.max_retries:
                self._close(request_id, FAILED)
                continue
            flight.retries += 1
            self.retries += 1
            self._return(request_id, flight, now + wait_ns)
        for request_id, flight in self._flights.items():
            if flight.sender == machine.number:
                flight.sender, flight.imported = None, False
                self._return(request_id, flight, now)
        self._flush()  # some may have hoped for this machine

    def _flush(self) -> None:
        """Machines have changed: look again for whoever waits at the router, in order."""
        waiting, self._at_router = self._at_router, {}
        for request_id in waiting:
            self._place(request_id, self._flights[request_id])

    def _close(self, request_id: int, reason: str) -> None:
        """Close a request that is on no server."""
        flight = self._flights[request_id]
        self.front[request_id] = Front(flight.arrived_ns, int(self._env.now), reason)
        self._at_router.pop(request_id, None)
        self._on_close(request_id)
        self._out(request_id, int(self._env.now))

    def _out(self, request_id: int, left_ns: int) -> None:
        """Count a request that is out, whatever way, and let its follow-ups come."""
        del self._flights[request_id]
        self.out += 1
        self.last_out_ns = left_ns
        for index in self._followers.pop(request_id, ()):
            when_ns = left_ns + self._workload.arrivals[index].think_ns
            self._agenda.at(max(when_ns, int(self._env.now) + 1), Moment.ARRIVAL, index)
        if self._progress is not None:
            self._progress(self.out, self._total)
