"""The load of a scenario: how much is asked at what rate, whether it fits, and the requests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from controllers.core import require
from simulator import defaults
from simulator.join import joined_workload, require_room
from simulator.sessions import Sessions, session_workload
from simulator.workload import LONGEST_S, Workload, poisson_workload, workload_at
from traces.arrivals import Arrivals, first, rescaled

if TYPE_CHECKING:
    from controllers.serving.limits import EngineLimits
    from controllers.steplaw import StepLaw
    from simulator.description import ClusterPlan
    from simulator.scenario import Scenario
    from traces.store import Trace

MOST_PER_S = 1e9  # one a tick of the clock


def replayed(
    arrivals: Arrivals, rate_per_s: float | None, n_requests: int | None
) -> tuple[Arrivals, float, int]:
    """Return recorded arrivals at a rate that is given, that rate, and how many are asked for."""
    if math.isnan(arrivals.rate_per_s):
        raise ValueError(
            f"{arrivals.source}: its {len(arrivals)} arrival(s) all lie at the same instant, so "
            "there is no rate to simulate; give them times, or leave --arrivals out"
        )
    arrivals = arrivals if rate_per_s is None else rescaled(arrivals, rate_per_s)
    wanted = len(arrivals) if n_requests is None else min(n_requests, len(arrivals))
    return arrivals, arrivals.rate_per_s, wanted


def drawn(
    trace: Trace,
    law: StepLaw,
    limits: EngineLimits,
    *,
    rate_per_s: float | None,
    n_requests: int | None,
    replicas: int,
) -> tuple[float, int]:
    """Return rate and number of Poisson arrivals: a share of capacity, each recording once."""
    answering = sum(r.output_tokens >= 1 for r in trace.requests)
    if rate_per_s is None:
        capacity = replicas * defaults.capacity_per_s(trace, law, limits)
        rate_per_s = defaults.UTILISATION * capacity
    return rate_per_s, answering if n_requests is None else n_requests


def of_users(
    sessions: Sessions, limits: EngineLimits, cluster: ClusterPlan | None
) -> tuple[Sessions, float, int]:
    """Return sessions that every server can hold, their most requests per second, and how many.

    The rate is that of answers in no time: what is asked for in a closed loop depends on them.
    """
    longest = min(sessions.max_total, *room_of(limits, cluster))
    rate_per_s = sessions.users / max(sessions.think_s, 1e-3)
    fitting = replace(sessions, max_total=longest)
    return fitting, rate_per_s, sessions.users * sessions.requests_per_user


def require_fit(scenario: Scenario) -> None:
    """Raise ``ValueError`` for requests that no server can hold, or, unless cut, no context."""
    if scenario.sessions is not None:
        return
    rate = scenario.rate_per_s
    least = (scenario.n_requests - 1) / LONGEST_S
    require(
        least <= rate <= MOST_PER_S,
        f"rate_per_s must lie in [{least:.0e}, {MOST_PER_S:.0e}], which the clock can tell apart",
        rate_per_s=rate,
    )
    if scenario.lengths == "arrivals":  # whose prompts may be cut to fit
        arrivals = scenario.arrivals
        known = arrivals is not None and arrivals.output_tokens is not None
        require(known, "lengths of arrivals need arrivals that have them", lengths=scenario.lengths)
        if arrivals is not None:
            lengths = replace(arrivals, prefixes=None, tenants=None, classes=None)
            asked = first(lengths, scenario.n_requests)
            context, pool = room_of(scenario.limits, scenario.cluster)
            require_room(asked, None, pool, "the KV pool")
            if not scenario.cut_prompts:
                advice = "; --cut-prompts cuts the prompts to fit"
                require_room(asked, None, context, "max_context", advice)
        return
    longest = max(r.prompt_tokens + scenario.cap(r.task_class) for r in scenario.trace.requests)
    needed = scenario.limits.pages_for(longest)
    require(
        needed <= scenario.limits.n_pages,
        f"pages must hold the longest request, {longest} tokens = {needed} pages",
        pages=scenario.limits.n_pages,
    )


def workload_of(scenario: Scenario, seed: int) -> Workload:
    """Return who asks for what, and when; the same for every preset."""
    trace, asking = scenario.trace, scenario.asking
    if scenario.sessions is not None:
        return session_workload(trace, scenario.sessions, seed=seed, asking=asking)
    if scenario.arrivals is None:
        return poisson_workload(
            trace,
            rate_per_s=scenario.rate_per_s,
            n_requests=scenario.n_requests,
            seed=seed,
            asking=asking,
        )
    if scenario.lengths == "arrivals":
        context, pool = room_of(scenario.limits, scenario.cluster)
        return joined_workload(
            trace,
            first(scenario.arrivals, scenario.n_requests),
            seed=seed,
            asking=asking,
            max_total=context,
            room=pool,
            share_prefixes=scenario.share_prefixes,
        )
    times_s = scenario.arrivals.times_s[: scenario.n_requests]
    return workload_at(trace, times_s=times_s, seed=seed, asking=asking)


def room_of(limits: EngineLimits, cluster: ClusterPlan | None) -> tuple[int, int]:
    """Return the tokens of a context and of a KV pool that every server can hold."""
    groups = () if cluster is None else cluster.groups
    held = [limits if one.limits is None else one.limits for one in groups] or [limits]
    pools = (one.n_pages * one.page_tokens for one in held)
    return min(one.max_context for one in held), min(pools)
