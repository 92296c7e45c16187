"""Admission control: whether an arrival is let in, and to which servers it may go."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.cluster_fleet import Member
from simulator.description import Admission


def admissible(
    rules: Admission, members: Sequence[Member], everyone: Sequence[Member], at_router: int
) -> list[Member] | None:
    """Return the servers among ``members`` that an arrival may join; None: reject it.

    ``everyone`` are all servers that take arrivals, ``at_router`` the requests that wait for one.
    The rules are asked once, at arrival: a retried or transferred request was let in before.
    """
    if rules.max_waiting is not None:
        waiting = at_router + sum(member.server.n_waiting for member in everyone)
        if waiting >= rules.max_waiting:
            return None
    bound = rules.max_waiting_per_server
    if bound is None or not members:
        return list(members)
    return [member for member in members if member.server.n_waiting < bound] or None
