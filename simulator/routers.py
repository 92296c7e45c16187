"""Who serves an arriving request: routers see servers as a load balancer would, never the truth."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from controllers.core import require
from simulator.arrival import Arrival
from simulator.cluster_fleet import Member
from simulator.routers_base import Kept, Router
from simulator.routers_work import ExpectedWork

RouterName = Literal[
    "round_robin",
    "least_loaded",
    "power_of_two",
    "prefix_aware",
    "fastest",
    "expected_work",
    "entropy_aware",
]


class RoundRobin(Router):
    """Servers in turn, blind to load; prefill and decode servers each in a circle of their own."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the next server in the circle."""
        role = members[0].role
        turn = self._next.get(role, 0)
        self._next[role] = turn + 1
        return turn % len(members)


class LeastLoaded(Router):
    """The server with the fewest outstanding tokens."""

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the least loaded."""
        loads = [member.server.outstanding_tokens for member in members]
        return loads.index(min(loads))


class PowerOfTwo(Router):
    """The less loaded of two servers drawn at random: most of the gain for two questions.

    Mitzenmacher 2001, "The power of two choices in randomized load balancing".
    """

    def __init__(self, seed: int = 0) -> None:
        self._draws = random.Random(seed)

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the less loaded of two; the only one where there is one."""
        if len(members) == 1:
            return 0
        pair = sorted(self._draws.sample(range(len(members)), 2))
        return min(pair, key=lambda index: members[index].server.outstanding_tokens)


class PrefixAware(Router):
    """The server that has seen most leading pages of the prompt, unless it is too loaded.

    Per server it keeps the page hashes it sent there, the oldest forgotten, as many as the server
    has pages. A server with more than ``bound`` times the mean outstanding tokens, the request's
    own counted, is passed over (bounded loads: Mirrokni et al., arXiv 1608.01350). Equal matches
    go to the least loaded.
    """

    def __init__(self, bound: float = 1.25) -> None:
        require(bound >= 1.0, "bound must be >= 1", bound=bound)
        self._bound = bound
        self._seen: dict[int, dict[int, None]] = {}  # by server: hashes, oldest first

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the longest match among servers within the bound."""
        loads = [member.server.outstanding_tokens for member in members]
        request = arrival.request
        own = request.prompt_tokens + request.max_tokens
        limit = self._bound * (sum(loads) + own) / len(loads)
        ranks = [
            (load > limit, -self._match(member, arrival.page_hashes), load, index)
            for index, (member, load) in enumerate(zip(members, loads, strict=True))
        ]
        return min(ranks)[-1]

    def placed(self, member: Member, arrival: Arrival) -> None:
        """Remember the prompt's pages at its server."""
        seen = self._seen.setdefault(member.number, {})
        for page in arrival.page_hashes:
            seen.pop(page, None)
            seen[page] = None
        while len(seen) > member.limits.n_pages:
            del seen[next(iter(seen))]

    def _match(self, member: Member, pages: Sequence[int]) -> int:
        seen = self._seen.get(member.number, {})
        found = 0
        for page in pages:
            if page not in seen:
                break
            found += 1
        return found


class Fastest(Router):
    """The server that would soonest have computed what it has and the request: for unlike GPUs.

    Outstanding tokens times the seconds of one token in a full batch, both of the server: its step
    law at as many rows of the request's full length as fit its slots and its pool.
    """

    def choose(self, members: Sequence[Member], arrival: Arrival) -> int:
        """Return the server with the least modelled time to go."""
        request = arrival.request
        length = request.prompt_tokens + request.max_tokens
        times = [
            (member.server.outstanding_tokens + length) * seconds_per_token(member, length)
            for member in members
        ]
        return times.index(min(times))


def seconds_per_token(member: Member, length: int) -> float:
    """Return modelled seconds of one token on a server full of rows of ``length`` tokens."""
    limits = member.limits
    rows = max(1, min(limits.max_seqs, limits.n_pages * limits.page_tokens // length))
    return member.step_law.step_s(rows, rows * length, 0, 0, length) / rows


def make_router(name: RouterName, *, seed: int = 0, kept: Kept | None = None) -> Router:
    """Return a fresh router by name; ``kept`` tells entropy_aware what a coverage reads."""
    match name:
        case "round_robin":
            return RoundRobin()
        case "least_loaded":
            return LeastLoaded()
        case "power_of_two":
            return PowerOfTwo(seed)
        case "prefix_aware":
            return PrefixAware()
        case "fastest":
            return Fastest()
        case "expected_work":
            return ExpectedWork()
        case "entropy_aware":
            require(kept is not None, "entropy_aware needs the kept shares of a model", kept=None)
            return ExpectedWork(kept)
        case _:
            raise ValueError(f"router must be one of {get_args(RouterName)}; got {name!r}")
