"""Starvation: four adversaries besiege one victim on the real serving loop.

The searched quantity is the victim's longest service gap in steps. Laws that claim a longest wait
(``max_wait_s``) must keep the bound that follows from it; the others must serve the victim before
the adversary loses patience. That bound is a statement of our scheduler: another one claims
nothing, and is granted no less time than ours may take.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.certificates.starvation import budget_steps, service_gap, sure_slots
from controllers.presets import Preset, get_preset
from controllers.priority import EntropyPriority, PriorityLaw
from controllers.serving.scheduler import Scheduler
from reports.verify.priority import promise
from reports.verify.property import (
    Case,
    Cases,
    Measured,
    Number,
    Property,
    Space,
    case_of,
    n_lanes,
)
from reports.verify.serving_subject import ServingSubject, serving_subject
from reports.verify.sieges import (
    COMMON,
    QUANTUM,
    SHORTEST_MS,
    TOKEN_BUDGET,
    fresh_arrivals,
    frozen_waiter,
    memory_hog,
    ping_pong,
)
from simulator.starvation import VICTIM, Moment, Ordeal, Siege, besiege

HORIZON = 500  # steps of a siege without a bound to break
UNCLAIMED = 250  # steps without service that the adversary grants where no bound is claimed
STORY_LINES = 14
PATIENCE = 4_000  # steps: the longest bound that a siege waits for
SHORTEST_S = 1e-9  # a claimed wait of nothing, or less
MAX_REDOS = 16  # losses of pages after which a case stops earning a wider bound

Served = PriorityLaw | Preset | ServingSubject


@dataclass(frozen=True, slots=True)
class Starvation:
    """One adversary; ``lay`` turns a case into a siege."""

    name: str
    statement: str
    changes: Space  # what this adversary draws otherwise than ``COMMON``
    lay: Callable[[Case], Siege]
    unit: str = "steps without service"

    def unfit(self, law: Served) -> str:
        """Return that a page pool has no order, or an empty string: any order can be besieged."""
        subject = serving_subject(law)
        alone = subject is not None and subject.pool_type is not None
        return "a page pool has no order of service" if alone else ""

    def space(self, law: Served) -> Space:
        """Return the adversary's choices; a preset brings its own quantum."""
        return {**COMMON, **self.changes, **(QUANTUM if serving_subject(law) is None else {})}

    def measure(self, law: Served, cases: Cases) -> Measured:
        """Run the sieges one by one, each until its verdict is known."""
        lanes = (case_of(cases, lane) for lane in range(n_lanes(cases)))
        ends = [_outcome(subject_of(law, lane), self.lay(lane)) for lane in lanes]
        value, bound = np.array([(ordeal.gap, bound) for ordeal, bound, _ in ends], float).T
        return Measured(value, bound)

    def story(self, law: Served, case: Case) -> list[str]:
        """Return who was there, what the bound is made of, and the telling steps."""
        subject, siege = subject_of(law, case), self.lay(case)
        ordeal, bound, claimed = _outcome(subject, siege, watch=True)
        limit = "the bound is" if claimed else "granted are"
        return [
            *_cast(siege, subject),
            *_timeline(ordeal),
            f"{_ending(ordeal)}, {limit} {bound:.0f}",
        ]

    def certificate(self, law: Served) -> Certificate | None:
        """Return the bound of the largest siege in the space, its requests redone once at most.

        It is proved of our scheduler: another one gets none.
        """
        subject = serving_subject(law)
        if subject is not None and subject.scheduler_type is not Scheduler:
            return None
        space = self.space(law)
        top = {k: int(part.high) for k, part in space.items() if isinstance(part, Number)}
        outputs = (top["fresh_output"], top["victim_output"])
        known = max(top["fresh_prompt"] + outputs[0], top["victim_prompt"] + outputs[1])
        # A foreign law's claim bounds its sieges, but proves nothing: it gets no certificate.
        return service_gap(
            law if subject is None else subject.preset.priority,
            name=self.name,
            n_active=top["crowd"] + 1,
            slots=1,
            residence_steps=max(outputs),
            quantum_steps=None if subject is None else subject.preset.quantum_tokens,
            step_s=SHORTEST_MS / 1000.0,
            prefill_steps=budget_steps(known, TOKEN_BUDGET, top["slots"]),
            redos=1,
        )


def _outcome(
    subject: ServingSubject, siege: Siege, *, watch: bool = False
) -> tuple[Ordeal, float, bool]:
    """Return what the siege did, the bound given the losses seen, and whether it is claimed."""
    redos, ours = 0, subject.scheduler_type is Scheduler
    while True:
        bound = gap_bound(subject.preset, siege, redos)
        claimed = ours and math.isfinite(bound)
        if not claimed:
            bound = max(bound, UNCLAIMED) if math.isfinite(bound) else float(UNCLAIMED)
        ordeal = besiege(
            subject.preset,
            siege,
            _horizon(bound, siege),
            enough=bound,
            watch=watch,
            scheduler_type=subject.scheduler_type,
        )
        if ordeal.gap <= bound or ordeal.redos <= redos or redos == MAX_REDOS:
            return ordeal, bound, claimed
        redos = min(ordeal.redos, MAX_REDOS)


def _horizon(bound: float, siege: Siege) -> int:
    # Twice, so that a gap that begins late in the siege still has the time to break the bound.
    # A bound past PATIENCE is nothing to wait for: the longest gap until then is reported.
    return HORIZON if bound > PATIENCE else 2 * math.ceil(bound) + siege.lead + 2


def subject_of(law: Served, case: Case) -> ServingSubject:
    """Return the server under test, see :func:`preset_of`, and who schedules it."""
    subject = serving_subject(law)
    if subject is None:
        return ServingSubject(preset=preset_of(law, case))
    return dataclasses.replace(subject, preset=preset_of(subject.preset, case))


def preset_of(law: Any, case: Case) -> Preset:
    """Return the server under test: a preset's order of service, or a law's in a neutral one.

    Temperature and coverage are the baseline's: what is besieged is the order.
    """
    neutral = get_preset("baseline")
    if isinstance(law, Preset):
        laws = {"temperature": neutral.temperature, "coverage": neutral.coverage}
        return dataclasses.replace(law, **laws)
    quantum = int(case["quantum"]) or None
    return dataclasses.replace(neutral, name="besieged", priority=law, quantum_tokens=quantum)


def gap_bound(preset: Preset, siege: Siege, redos: int = 0) -> float:
    """Return the longest service gap that theory allows our scheduler, steps; inf: no theory.

    ``redos`` is how often one request may lose its pages in mid-quantum; none does where all who
    can be resident fit the pool at full length. Where only a new token is service, the victim may
    itself have to prefill, and to queue, once more after each loss.
    """
    limits, fresh, victim = siege.limits, siege.fresh, siege.victim
    known = [r.prompt_tokens + r.max_tokens for r in (fresh, victim)]
    largest = max(map(limits.pages_for, known))
    pages_short = min(limits.max_seqs, siege.crowd + 1) * largest > limits.n_pages
    redos = redos if pages_short else 0
    prefill = budget_steps(max(known), limits.token_budget, limits.max_seqs)
    proof = _claim(
        preset.priority,
        n_active=siege.crowd + 1,
        slots=sure_slots(limits.max_seqs, limits.n_pages, largest),
        residence_steps=max(fresh.max_tokens, victim.max_tokens),
        quantum_steps=preset.quantum_tokens,
        step_s=siege.step_s,
        prefill_steps=prefill,
        redos=redos,
        pages_short=pages_short,
    )
    if proof is None or not siege.tokens_count:
        return math.inf if proof is None else proof.bound
    ageing = proof.constants.get("wait_steps", 0.0)
    own_prefill = limits.max_seqs * max(1, prefill)
    return ageing + (1 + redos) * (proof.bound - ageing + own_prefill)


def _claim(law: PriorityLaw, **sizes: Any) -> Certificate | None:
    """Return the service-gap certificate; a foreign law is held to the longest wait it claims."""
    proof = service_gap(law, **sizes)
    claimed_s = promise(law, "max_wait_s")
    if proof is None and math.isfinite(claimed_s):
        longest_s = max(claimed_s, SHORTEST_S)
        return service_gap(EntropyPriority(pi_max=longest_s, kappa=1.0), **sizes)
    return proof


PROPERTIES: tuple[Property, ...] = (
    Starvation(
        name="starvation.fresh_arrivals",
        statement="a waiting request is served although fresh ones with more collapse keep coming",
        changes={"victim_prompt": Number(1, 96, integer=True)},  # of up to three token budgets
        lay=fresh_arrivals,
    ),
    Starvation(
        name="starvation.frozen_waiter",
        statement="a preempted request whose entropy no longer falls is served again",
        changes={
            "lead": Number(1, 24, integer=True),
            "victim_output": Number(8, 48, integer=True),
            "fresh_output": Number(4, 16, integer=True),
        },
        lay=frozen_waiter,
    ),
    Starvation(
        name="starvation.memory_hog",
        statement="a request that needs most of the pages is served although small ones would fit",
        changes={
            "victim_prompt": Number(24, 120, integer=True),
            "fresh_prompt": Number(1, 8, integer=True),
        },
        lay=memory_hog,
    ),
    Starvation(
        name="starvation.ping_pong",
        statement="two large requests that preempt one another both get on, token by token",
        changes={
            "slots": Number(2, 3, integer=True),
            "crowd": Number(1, 2, integer=True),
            "victim_prompt": Number(24, 60, integer=True),
            "victim_output": Number(16, 40, integer=True),
            "fresh_prompt": Number(24, 60, integer=True),
            "fresh_output": Number(16, 40, integer=True),
        },
        lay=ping_pong,
    ),
)


def _cast(siege: Siege, subject: ServingSubject) -> list[str]:
    limits, victim, fresh = siege.limits, siege.victim, siege.fresh
    quantum = subject.preset.quantum_tokens or "none"
    server = subject.scheduler_type
    under = [] if server is Scheduler else [f"scheduled by {server.__name__}: no bound is claimed"]
    law = type(subject.preset.priority).__name__
    return [
        *under,
        f"{law}, {limits.max_seqs} slot(s), {limits.n_pages} pages of {limits.page_tokens}, "
        f"quantum {quantum}, a step takes {siege.step_s:g} s",
        f"victim (0): prompt {victim.prompt_tokens}, output {victim.max_tokens}; "
        f"{siege.crowd} fresh alive: prompt {fresh.prompt_tokens}, output {fresh.max_tokens}",
    ]


def _timeline(ordeal: Ordeal) -> list[str]:
    """Return telling steps, ever rarer: where the victim was preempted or ranked against others."""
    lines = ["step  ran                preempted   victim's priority   best other"]
    telling = [m for m in ordeal.moments if VICTIM in m.preempted or m.ranked]
    shown = telling or list(ordeal.moments)
    picks = np.unique(np.geomspace(1, len(shown), STORY_LINES).astype(int)) - 1
    return [*lines, *(_moment(shown[i]) for i in picks)]


def _moment(moment: Moment) -> str:
    ran = " ".join(map(str, moment.ran)) or "-"
    preempted = " ".join(map(str, moment.preempted)) or "-"
    victim, rival = (
        "-" if p is None else f"{p:.5g}" for p in (moment.victim_priority, moment.rival_priority)
    )
    return f"{moment.step:4d}  {ran:<18} {preempted:<11} {victim:<19} {rival}"


def _ending(ordeal: Ordeal) -> str:
    end = "finished" if ordeal.finished else f"unserved for the last {ordeal.open_gap} steps"
    return f"after {ordeal.steps} steps the victim is {end}; longest gap {ordeal.gap}"
