"""What a cluster's machines cost: GPU-seconds, money and energy, from how long each was up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.serving.ledger import Ledger
from controllers.serving.metrics import Spending
from simulator.cluster_fleet import Fleet
from simulator.description import Group
from simulator.workload import NS_PER_S

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the machines of one group were used for. Starting and draining servers are paid for."""

    group: str
    gpus: int  # of one server
    servers_started: int
    paid_s: float  # server-seconds starting, up or draining
    up_s: float  # the same without starting
    busy_s: float | None  # server-seconds in steps; None: neither rows nor whole totals are kept
    usd: float | None  # None: no price was given
    joules: float | None  # None: no power was given

    @property
    def gpu_s(self) -> float:
        """GPU-seconds that are paid for."""
        return self.gpus * self.paid_s


def usage(fleet: Fleet) -> tuple[Usage, ...]:
    """Return the usage of each group; call it after ``Fleet.close``.

    Energy is ``watts`` while a step runs and ``idle_watts`` for the rest of the time paid for;
    without ``idle_watts`` that rest counts nothing. Neither depends on what the step computes.
    """
    found = []
    for index, group in enumerate(fleet.groups):
        machines = [machine for machine in fleet.machines if machine.group == index]
        numbers = {machine.number for machine in machines}
        members = [member for member in fleet.members if member.machine in numbers]
        paid_s = sum(machine.paid_ns for machine in machines) / NS_PER_S
        busy_s = _busy_s([member.server.ledger for member in members])
        found.append(
            Usage(
                group=group.name,
                gpus=group.gpus,
                servers_started=len(members),
                paid_s=paid_s,
                up_s=sum(machine.up_ns for machine in machines) / NS_PER_S,
                busy_s=busy_s,
                usd=_usd(group, paid_s),
                joules=_joules(group, paid_s, busy_s),
            )
        )
    return tuple(found)


def spending(parts: Sequence[Usage]) -> Spending:
    """Return the bill of the whole cluster; money or energy with an unknown part is None."""
    return Spending(
        gpu_s=sum(part.gpu_s for part in parts),
        up_s=sum(part.up_s for part in parts),
        usd=_sum([part.usd for part in parts]),
        joules=_sum([part.joules for part in parts]),
    )


def _usd(group: Group, paid_s: float) -> float | None:
    if group.usd_per_hour is None:
        return None
    return group.gpus * group.usd_per_hour * paid_s / SECONDS_PER_HOUR


def _busy_s(ledgers: list[Ledger]) -> float | None:
    total_ns = 0
    for ledger in ledgers:
        if ledger.record_steps:
            total_ns += int(ledger.steps["duration_ns"].sum())
        elif ledger.totals.from_ns == 0:
            total_ns += ledger.totals.sum("duration_ns")
        else:  # totals leave the warm-up out
            return None
    return total_ns / NS_PER_S


def _joules(group: Group, paid_s: float, busy_s: float | None) -> float | None:
    if group.watts is None or busy_s is None:
        return None
    idle_s = max(0.0, paid_s - busy_s)
    return group.gpus * (group.watts * busy_s + (group.idle_watts or 0.0) * idle_s)


def _sum(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
