"""What a cluster is made of: groups of servers, and the rules between them.

:mod:`simulator.description_file` reads JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from controllers.core import require
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw

Role = Literal["both", "prefill", "decode"]
Load = Literal["requests", "pages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscale:
    """Every ``period_s``, order servers for ``target`` load each; go down by draining.

    ``metric`` "requests" counts waiting and resident requests over ``max_seqs`` (it may exceed 1),
    "pages" the share of KV pages held. ``target`` is that load per server. ``cooldown_s`` is from
    the last change in either direction to the next step down. A crashed machine that will come
    back counts as ordered.
    """

    target: float
    min_servers: int = 1
    max_servers: int
    metric: Load = "requests"
    period_s: float = 15.0
    startup_s: float = 60.0
    cooldown_s: float = 120.0
    tolerance: float = 0.1  # relative distance from the target that changes nothing

    def __post_init__(self) -> None:
        _positive(target=self.target, period_s=self.period_s)
        _at_least_zero(
            startup_s=self.startup_s, cooldown_s=self.cooldown_s, tolerance=self.tolerance
        )
        require(self.min_servers >= 1, "min_servers must be >= 1", min_servers=self.min_servers)
        require(
            self.max_servers >= self.min_servers,
            f"max_servers must be >= min_servers = {self.min_servers}",
            max_servers=self.max_servers,
        )
        require(
            self.metric in get_args(Load),
            f"metric must be one of {get_args(Load)}",
            metric=self.metric,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``count`` equal servers; what is None is the cluster's own."""

    name: str = "servers"
    count: int = 1  # at the start
    role: Role = "both"
    step_law: StepLaw | None = None
    limits: EngineLimits | None = None
    gpus: int = 1  # per server: the degree of tensor parallelism
    usd_per_hour: float | None = None  # of one GPU
    watts: float | None = None  # of one GPU while its server computes
    idle_watts: float | None = None  # of one GPU while its server is up or starting, and does not
    autoscale: Autoscale | None = None

    def __post_init__(self) -> None:
        require(self.count >= 1, "count must be >= 1", count=self.count, group=self.name)
        require(self.gpus >= 1, "gpus must be >= 1", gpus=self.gpus, group=self.name)
        require(
            self.role in get_args(Role), f"role must be one of {get_args(Role)}", role=self.role
        )
        for name in ("usd_per_hour", "watts", "idle_watts"):
            value = getattr(self, name)
            if value is not None:
                _at_least_zero(**{name: value})
        scale = self.autoscale
        require(
            scale is None or scale.min_servers <= self.count <= scale.max_servers,
            "count must lie in [min_servers, max_servers] of its autoscaler",
            count=self.count,
        )

    @property
    def places(self) -> int:
        """Machines the group may ever run at once."""
        return self.count if self.autoscale is None else self.autoscale.max_servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Bounds on waiting requests; an arrival beyond one is rejected. None does not bind."""

    max_waiting_per_server: int | None = None
    max_waiting: int | None = None  # in the whole cluster, those at the router included

    def __post_init__(self) -> None:
        for name in ("max_waiting_per_server", "max_waiting"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be >= 1", **{name: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One machine down for a stated time, from a stated moment; it must be up then to crash."""

    machine: int  # in order of groups, then of places
    at_s: float
    down_s: float | None = None  # None: for good

    def __post_init__(self) -> None:
        require(self.machine >= 0, "machine must be >= 0", machine=self.machine)
        _at_least_zero(at_s=self.at_s)
        if self.down_s is not None:
            _positive(down_s=self.down_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Crashes, at stated moments or at random, and what becomes of the requests they hit.

    At random, each machine is up for an exponential time of mean ``mtbf_s`` and down for one of
    mean ``mttr_s``, from a stream of its own: the same moments under every policy.
    """

    mtbf_s: float | None = None  # None: no random failures
    mttr_s: float = 60.0
    seed: int = 0
    outages: tuple[Outage, ...] = ()
    max_retries: int = 3
    retry_after_s: float = 0.0

    def __post_init__(self) -> None:
        if self.mtbf_s is not None:
            _positive(mtbf_s=self.mtbf_s)
        _positive(mttr_s=self.mttr_s)
        _at_least_zero(retry_after_s=self.retry_after_s)
        require(self.seed >= 0, "seed must be >= 0", seed=self.seed)
        require(self.max_retries >= 0, "max_retries must be >= 0", max_retries=self.max_retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How a prompt's KV gets from a prefill server to a decode server."""

    bytes_per_token: float  # keys and values of one token, all layers
    bandwidth_bytes_per_s: float  # of the link out of each prefill server, first come first served
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        _positive(
            bytes_per_token=self.bytes_per_token,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s,
        )
        _at_least_zero(latency_s=self.latency_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """Groups of servers behind one router, and the rules between them."""

    groups: tuple[Group, ...]
    admission: Admission = field(default_factory=Admission)
    failures: Failures = field(default_factory=Failures)
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        require(len(self.groups) >= 1, "a cluster needs a group", groups=len(self.groups))
        names = [group.name for group in self.groups]
        require(len(set(names)) == len(names), "names of groups must be distinct", groups=names)
        roles = {group.role for group in self.groups}
        takes, goes_on = roles & {"both", "prefill"}, roles & {"both", "decode"}
        require(bool(takes), "some group must take arrivals: role both or prefill", roles=roles)
        require(bool(goes_on), "some group must decode: role both or decode", roles=roles)
        require(
            "decode" not in roles or "prefill" in roles,
            "a decode group needs a prefill group",
            roles=sorted(roles),
        )
        require(
            "prefill" not in roles or self.transfer is not None,
            "a prefill group needs a transfer",
            transfer=None,
        )
        for outage in self.failures.outages:
            require(
                outage.machine < self.places,
                f"machine must be < {self.places}, the places of all groups",
                machine=outage.machine,
            )

    @property
    def places(self) -> int:
        """Machines the cluster may ever run at once."""
        return sum(group.places for group in self.groups)

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and outputs may be served by different servers."""
        return any(group.role == "prefill" for group in self.groups)


def _positive(**named: float) -> None:
    for name, value in named.items():
        require(
            math.isfinite(value) and value > 0.0,
            f"{name} must be finite and > 0",
            **{name: value},
        )


def _at_least_zero(**named: float) -> None:
    for name, value in named.items():
        require(
            math.isfinite(value) and value >= 0.0,
            f"{name} must be finite and >= 0",
            **{name: value},
        )
