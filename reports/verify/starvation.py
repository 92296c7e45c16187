"""Starvation: four adversaries besiege one victim on the real serving loop.

The searched quantity is the victim's longest service gap in steps. Laws that claim a longest wait
(``max_wait_s``) must keep the bound that follows from it; the others must serve the victim before
the adversary loses patience.
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
UNCLAIMED = 250  # steps without service that the adversary grants a law that claims no bound
STORY_LINES = 14
PATIENCE = 4_000  # steps: the longest bound that a siege waits for
SHORTEST_S = 1e-9  # a claimed wait of nothing, or less
MAX_REDOS = 16  # losses of pages after which a case stops earning a wider bound


@dataclass(frozen=True, slots=True)
class Starvation:
    """One adversary; ``lay`` turns a case into a siege."""

    name: str
    statement: str
    changes: Space  # what this adversary draws otherwise than ``COMMON``
    lay: Callable[[Case], Siege]
    unit: str = "steps without service"

    def unfit(self, law: PriorityLaw | Preset) -> str:
        """Return an empty string: every order of service can be besieged."""
        return ""

    def space(self, law: PriorityLaw | Preset) -> Space:
        """Return the adversary's choices; a preset brings its own quantum."""
        return {**COMMON, **self.changes, **({} if isinstance(law, Preset) else QUANTUM)}

    def measure(self, law: PriorityLaw | Preset, cases: Cases) -> Measured:
        """Run the sieges one by one, each until its verdict is known."""
        lanes = (case_of(cases, lane) for lane in range(n_lanes(cases)))
        ends = [_outcome(*self._setting(law, lane)) for lane in lanes]
        value, bound = np.array([(ordeal.gap, bound) for ordeal, bound, _ in ends], float).T
        return Measured(value, bound)

    def story(self, law: PriorityLaw | Preset, case: Case) -> list[str]:
        """Return who was there, what the bound is made of, and the telling steps."""
        preset, siege = self._setting(law, case)
        ordeal, bound, claimed = _outcome(preset, siege, watch=True)
        limit = "the bound is" if claimed else "granted are"
        return [
            *_cast(siege, preset),
            *_timeline(ordeal),
            f"{_ending(ordeal)}, {limit} {bound:.0f}",
        ]

    def certificate(self, law: PriorityLaw | Preset) -> Certificate | None:
        """Return the bound of the largest siege in the space, its requests redone once at most."""
        space = self.space(law)
        top = {k: int(part.high) for k, part in space.items() if isinstance(part, Number)}
        outputs = (top["fresh_output"], top["victim_output"])
        known = max(top["fresh_prompt"] + outputs[0], top["victim_prompt"] + outputs[1])
        # A foreign law's claim bounds its sieges, but proves nothing: it gets no certificate.
        return service_gap(
            law.priority if isinstance(law, Preset) else law,
            name=self.name,
            n_active=top["crowd"] + 1,
            slots=1,
            residence_steps=max(outputs),
            quantum_steps=law.quantum_tokens if isinstance(law, Preset) else None,
            step_s=SHORTEST_MS / 1000.0,
            prefill_steps=budget_steps(known, TOKEN_BUDGET, top["slots"]),
            redos=1,
        )

    def _setting(self, law: PriorityLaw | Preset, case: Case) -> tuple[Preset, Siege]:
        return preset_of(law, case), self.lay(case)


def _outcome(preset: Preset, siege: Siege, *, watch: bool = False) -> tuple[Ordeal, float, bool]:
    """Return what the siege did, the bound given the losses seen, and whether it is claimed."""
    redos = 0
    while True:
        bound = gap_bound(preset, siege, redos)
        claimed = math.isfinite(bound)
        bound = bound if claimed else float(UNCLAIMED)
        ordeal = besiege(preset, siege, _horizon(bound, siege), enough=bound, watch=watch)
        if ordeal.gap <= bound or ordeal.redos <= redos or redos == MAX_REDOS:
            return ordeal, bound, claimed
        redos = min(ordeal.redos, MAX_REDOS)


def _horizon(bound: float, siege: Siege) -> int:
    # Twice, so that a gap that begins late in the siege still has the time to break the bound.
    # A bound past PATIENCE is nothing to wait for: the longest gap until then is reported.
    return HORIZON if bound > PATIENCE else 2 * math.ceil(bound) + siege.lead + 2


def preset_of(law: PriorityLaw | Preset, case: Case) -> Preset:
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
    """Return the longest service gap that theory allows, steps; inf where it has none.

    ``redos`` is how often one request may lose its pages in mid-quantum. Where only a new token is
    service, the victim may itself have to prefill, and to queue, once more after each loss.
    """
    limits, fresh, victim = siege.limits, siege.fresh, siege.victim
    known = [r.prompt_tokens + r.max_tokens for r in (fresh, victim)]
    prefill = budget_steps(max(known), limits.token_budget, limits.max_seqs)
    proof = _claim(
        preset.priority,
        n_active=siege.crowd + 1,
        slots=sure_slots(limits.max_seqs, limits.n_pages, max(map(limits.pages_for, known))),
        residence_steps=max(fresh.max_tokens, victim.max_tokens),
        quantum_steps=preset.quantum_tokens,
        step_s=siege.step_s,
        prefill_steps=prefill,
        redos=redos,
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
        changes={},
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


def _cast(siege: Siege, preset: Preset) -> list[str]:
    limits, victim, fresh = siege.limits, siege.victim, siege.fresh
    quantum = preset.quantum_tokens or "none"
    return [
        f"{type(preset.priority).__name__}, {limits.max_seqs} slot(s), {limits.n_pages} pages of "
        f"{limits.page_tokens}, quantum {quantum}, a step takes {siege.step_s:g} s",
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
