"""Starts, stops and crashes machines: failures, recoveries and autoscaling."""

from __future__ import annotations

from simulator.autoscale import desired_servers
from simulator.cluster_agenda import Agenda, Moment
from simulator.cluster_fleet import SERVING, Fleet, Machine, State
from simulator.description import Autoscale, ClusterPlan
from simulator.failures import FailureClock
from simulator.workload import NS_PER_S

OPEN = "open"  # note of the second of two READY moments


class Keeper:
    """Moves machines between their states at the moments of the agenda."""

    def __init__(self, plan: ClusterPlan, fleet: Fleet, agenda: Agenda) -> None:
        """Put the first crashes and the first decisions of autoscalers on the agenda."""
        self._plan = plan
        self._fleet = fleet
        self._agenda = agenda
        self._clock = FailureClock(plan.failures)
        self._changed_ns = [0] * len(plan.groups)  # last change of each group's size
        for machine, at_ns, down_ns in self._clock.stated():
            agenda.at(at_ns, Moment.CRASH, machine, (down_ns,))
        for machine in fleet.machines:
            if machine.state is State.UP:
                self._await_crash(machine, 0)
        for index, group in enumerate(plan.groups):
            if group.autoscale is not None:
                agenda.at(_ns(group.autoscale.period_s), Moment.TICK, index)

    def act(self, kind: Moment, key: int, note: object, now_ns: int) -> bool:
        """Act on a READY or TICK moment; return whether a server now takes requests."""
        if kind is Moment.TICK:
            return self._tick(key, now_ns)
        machine = self._fleet.machines[key]
        if note != OPEN:
            self._fleet.boot(machine, now_ns)
            self._agenda.soon(Moment.READY, key, OPEN)
            return False
        self._fleet.open(machine, now_ns)
        self._await_crash(machine, now_ns)
        return True

    def crash(self, machine: Machine, note: object, now_ns: int) -> list[int] | None:
        """Crash a machine that serves, and order its recovery; return the requests it lost.

        None where nothing serves or the crash is void. ``note`` is the server's start count for a
        random crash, which another start makes void, or a stated down-time in a tuple.
        """
        if machine.state not in SERVING or (isinstance(note, int) and note != machine.starts):
            return None
        was_draining = machine.state is State.DRAINING
        lost = self._fleet.crash(machine, now_ns)
        down_ns: int | None = note[0] if isinstance(note, tuple) else None
        if isinstance(note, int):
            down_ns = self._clock.downtime_ns(machine.number)
        if was_draining or down_ns is None:  # on its way out, or gone for good
            machine.move(State.OFF, now_ns)
        else:
            self._agenda.at(now_ns + down_ns, Moment.READY, machine.number)
        return lost

    def _await_crash(self, machine: Machine, now_ns: int) -> None:
        up_ns = self._clock.uptime_ns(machine.number)
        if up_ns is not None:
            self._agenda.at(now_ns + up_ns, Moment.CRASH, machine.number, machine.starts)

    def _tick(self, group: int, now_ns: int) -> bool:
        """Bring a group towards the size its autoscaler asks for."""
        rules = self._plan.groups[group].autoscale
        assert rules is not None, "a group without an autoscaler has no ticks"
        self._agenda.at(now_ns + _ns(rules.period_s), Moment.TICK, group)
        fleet = self._fleet
        serving = [m.member for m in fleet.of_group(group, *SERVING) if m.member is not None]
        up = fleet.of_group(group, State.UP)
        coming = fleet.of_group(group, State.STARTING, State.DOWN)
        draining = fleet.of_group(group, State.DRAINING)
        current = len(up) + len(coming)
        more = desired_servers(rules, serving, current) - current
        if more > 0:
            self._changed_ns[group] = now_ns
            return self._grow(rules, group, more, draining, now_ns)
        if more < 0 and now_ns - self._changed_ns[group] >= _ns(rules.cooldown_s):
            self._changed_ns[group] = now_ns
            floor = len(up) - rules.min_servers
            self._shrink(up, min(-more, floor), now_ns)
        return False

    def _grow(
        self, rules: Autoscale, group: int, more: int, draining: list[Machine], now_ns: int
    ) -> bool:
        """Keep draining servers first, for they are warm; start others. Say whether any is open."""
        for machine in draining[:more]:
            self._fleet.open(machine, now_ns)
        started = max(0, more - len(draining))
        for machine in self._fleet.of_group(group, State.OFF)[:started]:
            machine.move(State.STARTING, now_ns)
            self._agenda.at(now_ns + _ns(rules.startup_s), Moment.READY, machine.number)
        return bool(draining)

    def _shrink(self, up: list[Machine], fewer: int, now_ns: int) -> None:
        """Drain the servers with the fewest outstanding tokens, later machines first of equals."""

        def load(machine: Machine) -> tuple[int, int]:
            assert machine.member is not None, "a machine that is up has a server"
            return machine.member.server.outstanding_tokens, -machine.number

        for machine in sorted(up, key=load)[: max(0, fewer)]:
            self._fleet.drain(machine, now_ns)
            if machine.member is not None and machine.member.empty:
                self._fleet.stop(machine, now_ns)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)
