"""The machines of a cluster: which are up, which server runs on each, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator.description import Group, Role
from simulator.server import Server


class State(StrEnum):
    """Where a machine is; only ``UP`` and ``DRAINING`` have a server."""

    OFF = "off"  # not rented
    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"  # serves what it has and takes nothing
    DOWN = "down"  # crashed; not paid for


COMING = (State.STARTING, State.UP, State.DOWN)
SERVING = (State.UP, State.DRAINING)
PAID = (State.STARTING, State.UP, State.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One server as a router sees it. A recovered machine brings a new one."""

    number: int  # in order of start
    machine: int
    server: Server
    step_law: StepLaw
    limits: EngineLimits
    role: Role = "both"

    @property
    def empty(self) -> bool:
        """Whether it has no unfinished request."""
        return self.server.n_running + self.server.n_waiting == 0


@dataclass(slots=True)
class Machine:
    """A place in a group, on which one server may run at a time."""

    number: int
    group: int
    role: Role
    state: State = State.OFF
    member: Member | None = None
    since_ns: int = 0  # of the current state
    paid_ns: int = 0  # starting, up and draining, up to ``since_ns``
    up_ns: int = 0  # the same without starting
    link_free_ns: int = 0  # when its outgoing link is free
    starts: int = 0  # servers that ran on it

    def move(self, state: State, now_ns: int) -> None:
        """Change state and account for the time in the last one."""
        if self.state in PAID:
            self.paid_ns += now_ns - self.since_ns
        if self.state in SERVING:
            self.up_ns += now_ns - self.since_ns
        self.state, self.since_ns = state, now_ns


def fits(request: Request, limits: EngineLimits) -> bool:
    """Return whether a server can ever serve a request: context and pool are long enough."""
    length = request.prompt_tokens + request.max_tokens
    return length <= limits.max_context and limits.pages_for(length) <= limits.n_pages


MakeMember = Callable[[int, Machine], Member]  # number of the server, its machine
Stage = Literal["arrival", "decode"]
STAGES: dict[Stage, tuple[Role, ...]] = {
    "arrival": ("both", "prefill"),
    "decode": ("both", "decode"),
}


@dataclass(slots=True)
class Fleet:
    """All machines, and all servers that ever ran."""

    groups: tuple[Group, ...]
    make: MakeMember
    machines: list[Machine] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    crashes: int = 0
    _takers: dict[Stage, list[Member]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay out the places of every group and start the first ``count`` of each."""
        for index, group in enumerate(self.groups):
            for place in range(group.places):
                machine = Machine(len(self.machines), index, group.role)
                self.machines.append(machine)
                if place < group.count:
                    self.boot(machine, 0)
                    self.open(machine, 0)

    def boot(self, machine: Machine, now_ns: int) -> None:
        """Make a server on a machine; it takes nothing before :meth:`open`."""
        assert machine.member is None, "a machine runs one server at a time"
        if machine.state is not State.STARTING:
            machine.move(State.STARTING, now_ns)
        machine.member = self.make(len(self.members), machine)
        machine.starts += 1
        self.members.append(machine.member)

    def open(self, machine: Machine, now_ns: int) -> None:
        """Let a machine's server take requests: one just made, or one that was draining."""
        assert machine.member is not None, "nothing runs on this machine"
        machine.move(State.UP, now_ns)
        self._takers.clear()

    def drain(self, machine: Machine, now_ns: int) -> None:
        """Give a machine no new request."""
        assert machine.state is State.UP, "only a machine that is up can drain"
        machine.move(State.DRAINING, now_ns)
        self._takers.clear()

    def stop(self, machine: Machine, now_ns: int) -> None:
        """Return a drained machine."""
        assert machine.member is not None, "nothing runs on this machine"
        assert machine.member.empty, "a machine with requests cannot stop"
        machine.member = None
        machine.move(State.OFF, now_ns)

    def crash(self, machine: Machine, now_ns: int) -> list[int]:
        """Lose a machine's server; return its unfinished requests in order of submission."""
        assert machine.member is not None, "nothing runs on this machine"
        lost = machine.member.server.crash()
        machine.member = None
        machine.link_free_ns = 0
        machine.move(State.DOWN, now_ns)
        self.crashes += 1
        self._takers.clear()
        return lost

    def takers(self, stage: Stage) -> list[Member]:
        """Return the servers that take requests at a stage, in order of machines."""
        found = self._takers.get(stage)
        if found is None:
            roles = STAGES[stage]
            up = [m.member for m in self.machines if m.state is State.UP and m.role in roles]
            found = self._takers[stage] = [member for member in up if member is not None]
        return found

    def may_take(self, stage: Stage, request: Request) -> bool:
        """Return whether a server that can hold ``request`` takes it at a stage, or may come."""
        for machine in self.machines:
            group = self.groups[machine.group]
            limits = group.limits
            comes = machine.state in COMING or group.autoscale is not None
            if (
                comes
                and machine.role in STAGES[stage]
                and (limits is None or fits(request, limits))
            ):
                return True
        return False

    def of_group(self, group: int, *states: State) -> list[Machine]:
        """Return the machines of a group in one of ``states``, in order."""
        return [m for m in self.machines if m.group == group and m.state in states]

    def close(self, now_ns: int) -> None:
        """Account for the time up to ``now_ns``."""
        for machine in self.machines:
            machine.move(machine.state, now_ns)
