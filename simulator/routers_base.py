"""What every router is asked, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.arrival import Arrival
from simulator.cluster_fleet import Member

Kept = Callable[[float], float]  # coverage -> mean share of KV that decode rows then read


class Router:
    """Chooses a server for each request; told of every request that joins or leaves one.

    Ties go to the first of equals. A router may use what servers report and what finished requests
    turned out to be; output lengths of unfinished ones are never read.
    """

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return an index into ``members``, at least one."""
        raise NotImplementedError

    def placed(self, member: Member, arrival: Arrival) -> None:
        """Note that a request has joined a server."""

    def left(self, member: Member, arrival: Arrival) -> None:
        """Note that a request has left a server: finished, cancelled, transferred or lost."""
