"""Several replicas behind a router, fed by one process of arrivals and cancellations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Literal, Protocol, get_args

import simpy

from controllers.core import require
from simulator.replica import Replica
from simulator.workload import Arrival, Workload

RouterName = Literal["round_robin", "least_loaded"]
Progress = Callable[[int, int], None]  # requests out so far, requests in all


class Router(Protocol):
    """Chooses the replica of each arriving request, for good."""

    def choose(self, replicas: Sequence[Replica]) -> int:
        """Return an index into ``replicas``."""
        ...


class RoundRobin:
    """Replicas in turn, blind to load."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, replicas: Sequence[Replica]) -> int:
        """Return the next replica in the circle."""
        chosen = self._next % len(replicas)
        self._next += 1
        return chosen


class LeastLoaded:
    """The replica with the fewest outstanding tokens; the first of equals."""

    def choose(self, replicas: Sequence[Replica]) -> int:
        """Return the least loaded; true output lengths are never read."""
        loads = [replica.outstanding_tokens for replica in replicas]
        return loads.index(min(loads))


def make_router(name: RouterName) -> Router:
    """Return a fresh router by name."""
    match name:
        case "round_robin":
            return RoundRobin()
        case "least_loaded":
            return LeastLoaded()
        case _:
            raise ValueError(f"router must be one of {get_args(RouterName)}; got {name!r}")


class Cluster:
    """Feeds a workload to replicas and accounts for every request."""

    def __init__(
        self,
        env: simpy.Environment,
        router: Router,
        workload: Workload,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Prepare the cluster; ``replicas`` are added before ``run``."""
        self.replicas: list[Replica] = []
        self.placed: dict[int, int] = {}  # request id -> replica
        self._env = env
        self._router = router
        self._workload = workload
        self._progress = progress
        self._out = 0

    def finished(self, _request_id: int) -> None:
        """Count a request that left, finished or cancelled; replicas call it."""
        self._out += 1
        if self._progress is not None:
            self._progress(self._out, len(self._workload.arrivals))

    def run(self, until_ns: int | None = None) -> None:
        """Run until every request is out, or to the horizon, where some may be unfinished."""
        require(len(self.replicas) >= 1, "a cluster needs a replica", replicas=len(self.replicas))
        self._env.process(self._feed())
        self._env.run(until_ns)
        total = len(self._workload.arrivals)
        if until_ns is None and self._out != total:
            raise RuntimeError(
                f"{total - self._out} of {total} requests neither finished nor failed"
            )

    def _feed(self) -> Generator[simpy.Event, None, None]:
        """Deliver arrivals and cancellations in time order; an arrival precedes a cancellation."""
        arrivals = self._workload.arrivals
        moments = [(a.arrival_ns, 0, i) for i, a in enumerate(arrivals)]
        moments += [(a.cancel_ns, 1, i) for i, a in enumerate(arrivals) if a.cancel_ns is not None]
        for when_ns, kind, index in sorted(moments):
            if when_ns > self._env.now:
                yield self._env.timeout(when_ns - int(self._env.now))
            if kind == 0:
                self._place(arrivals[index])
            else:
                request_id = arrivals[index].request.request_id
                self.replicas[self.placed[request_id]].cancel(request_id)

    def _place(self, arrival: Arrival) -> None:
        chosen = self._router.choose(self.replicas)
        self.placed[arrival.request.request_id] = chosen
        self.replicas[chosen].submit(arrival)
