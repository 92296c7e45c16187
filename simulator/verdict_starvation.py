"""Did anybody starve? The longest service gap of a run, held against the bound of its law.

The bound is ``controllers.certificates.starvation.service_gap`` for the run as it was: as many
requests at once as there were, the shortest step there was, as many losses of pages as the
unluckiest request had. It speaks of one server, so a cluster is judged server by server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.certificates.starvation import budget_steps, service_gap, sure_slots
from controllers.core import require
from controllers.presets import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.order_metrics import service_gaps_steps
from controllers.serving.sensors import NS_PER_S
from controllers.steplaw import StepLaw

Starvation = Literal["within bound", "starved", "no bound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StarvationVerdict:
    """``starved``: the gap exceeds the bound. ``no bound``: the law has none to hold it against."""

    verdict: Starvation
    gap_steps: int  # the longest, of the server that came closest to its bound
    request_id: int  # whose it was
    bound_steps: float | None  # None or inf: the law bounds nothing
    certificate: Certificate | None

    def line(self) -> str:
        """Say the verdict in one line."""
        text = f"{self.verdict}: request {self.request_id} went {self.gap_steps} steps unserved"
        if self.certificate is None:
            return f"{text}; this law has no certificate"
        if not self.certificate.holds:
            return f"{text}; {self.certificate.statement}"
        return f"{text}, the bound is {self.certificate.bound:.0f}: {self.certificate.statement}"


def starvation(
    ledgers: Sequence[Ledger], preset: Preset, limits: EngineLimits, step_law: StepLaw
) -> StarvationVerdict:
    """Judge the servers of a run, one ledger each, and return the verdict nearest to starving."""
    judged = [_judge(one, preset, limits, step_law) for one in ledgers if len(one.requests)]
    require(len(judged) >= 1, "a verdict needs a request", requests=0)
    return max(judged, key=_nearness)


def _nearness(found: StarvationVerdict) -> float:
    if found.bound_steps is None or math.isinf(found.bound_steps):
        return float(found.gap_steps)
    return found.gap_steps / found.bound_steps


def _judge(
    ledger: Ledger, preset: Preset, limits: EngineLimits, step_law: StepLaw
) -> StarvationVerdict:
    requests = ledger.requests
    longest = requests["prompt_tokens"] + requests["max_tokens"]
    pages = limits.pages_for(int(longest.max()))
    pages_short = limits.max_seqs * pages > limits.n_pages
    bound = service_gap(
        preset.priority,
        n_active=_most_at_once(ledger),
        slots=max(1, sure_slots(limits.max_seqs, limits.n_pages, pages)),
        residence_steps=int(requests["max_tokens"].max()),
        quantum_steps=preset.quantum_tokens,
        step_s=_shortest_s(ledger, step_law),
        prefill_steps=budget_steps(int(longest.max()), limits.token_budget, limits.max_seqs),
        redos=int(requests["preemptions"].max()) if pages_short else 0,
        pages_short=pages_short,
    )
    gaps = service_gaps_steps(ledger)
    worst = int(gaps.argmax())
    gap = int(gaps[worst])
    return StarvationVerdict(
        verdict=_verdict(gap, bound),
        gap_steps=gap,
        request_id=int(requests["request_id"][worst]),
        bound_steps=None if bound is None else bound.bound,
        certificate=bound,
    )


def _verdict(gap: int, bound: Certificate | None) -> Starvation:
    if bound is None or math.isinf(bound.bound):
        return "no bound"
    return "starved" if gap > bound.bound else "within bound"


def _most_at_once(ledger: Ledger) -> int:
    """Return the most requests unfinished at once; who leaves as another comes counts with it."""
    arrival = ledger.requests["arrival_ns"]
    finish = np.sort(ledger.requests["finish_ns"][[r is not None for r in ledger.reasons]])
    came = np.sort(arrival)
    gone = np.searchsorted(finish, came, side="left")
    return int((np.arange(1, len(came) + 1) - gone).max())


def _shortest_s(ledger: Ledger, step_law: StepLaw) -> float:
    if ledger.record_steps and len(ledger.steps):
        return float(ledger.steps["duration_ns"].min()) / NS_PER_S
    return max(step_law.base_s, 1.0 / NS_PER_S)
