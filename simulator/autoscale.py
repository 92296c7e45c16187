"""How many servers a group should have: the proportional rule of horizontal autoscalers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simulator.cluster_fleet import Member
from simulator.description import Autoscale


def desired_servers(rules: Autoscale, members: Sequence[Member], current: int) -> int:
    """Return the servers a group should have, where ``current`` take requests or are ordered.

    ``members`` are up or draining: their summed load over ``target``, rounded up, within the
    bounds. A load within ``tolerance`` of what ``current`` servers should have changes nothing.
    """
    total = sum(_load(rules, member) for member in members)
    if current and abs(total / (rules.target * current) - 1.0) <= rules.tolerance:
        wanted = current
    else:
        wanted = math.ceil(total / rules.target)
    return min(max(wanted, rules.min_servers), rules.max_servers)


def _load(rules: Autoscale, member: Member) -> float:
    server, limits = member.server, member.limits
    if rules.metric == "pages":
        return 1.0 - server.free_pages / limits.n_pages
    return (server.n_waiting + server.n_running) / limits.max_seqs
