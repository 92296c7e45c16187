"""Sieges: hostile workloads on the real serving loop, and how long their victim goes unserved.

An adversary keeps a closed population of fresh requests alive around one victim. The executor is
made up: entropies are a fixed pattern per request and every step lasts alike, so that a gap in
steps says something about the order of service and nothing about a model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np

from controllers.core import TokenSignal, require
from controllers.presets import Preset
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request, Sequence
from controllers.serving.scheduler import Scheduler
from controllers.serving.sensors import NS_PER_S
from controllers.steplaw import StepLaw

VICTIM = 0  # its request id; fresh requests count from 1
WARM_NATS = 4.0  # entropy before a collapse
TOKEN = 1  # every sampled token: nothing stops but at max_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Siege:
    """What the adversary does. One fresh request at most arrives per ``period`` steps.

    A fresh request is sent whenever fewer than ``crowd`` of them are unfinished, so at most
    ``crowd + 1`` requests are ever active. Each is its own client. Fresh entropies alternate
    between ``WARM_NATS`` and 0, the victim's stands still.
    """

    limits: EngineLimits
    step_s: float  # seconds of every step
    victim: Request
    fresh: Request  # template; each copy gets its own id
    crowd: int
    period: int = 1  # steps
    victim_first: bool = False  # True: the victim is served alone for ``lead`` steps
    lead: int = 4  # steps between the first and the second to come
    tokens_count: bool = False  # True: only a new token is service, a row is not

    def __post_init__(self) -> None:
        require(self.step_s > 0.0, "step_s must be positive", step_s=self.step_s)
        for name in ("crowd", "period"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be >= 1", **{name: value})
        require(self.lead >= 0, "lead must be >= 0", lead=self.lead)
        require(
            self.victim.request_id == VICTIM,
            f"the victim's request_id must be {VICTIM}",
            request_id=self.victim.request_id,
        )

    @property
    def step_law(self) -> StepLaw:
        """Return the law under which every step takes ``step_s``."""
        rest = ("per_decode_s", "per_kv_token_s", "per_prompt_token_s", "per_prompt_square_s")
        return StepLaw(base_s=self.step_s, floor_s=0.0, **dict.fromkeys(rest, 0.0))


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a siege, as an onlooker sees it."""

    step: int
    ran: tuple[int, ...]  # request ids with a row
    preempted: tuple[int, ...]
    victim_priority: float | None  # at this step's decision; None where none was open
    rival_priority: float | None  # the highest other priority in that decision

    @property
    def ranked(self) -> bool:
        """Whether the victim was ranked against others."""
        return self.victim_priority is not None and self.rival_priority is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordeal:
    """What became of the victim. ``gap`` counts the steps strictly between two services of it.

    A gap begins at its arrival or its last service; one still open at the end counts with the
    steps it has lasted.
    """

    gap: int  # longest gap
    gaps: tuple[int, ...]  # longest gap so far, per step
    redos: int  # most times one request lost its pages in mid-quantum
    open_gap: int  # still open when the siege ended; 0 where the victim finished
    steps: int
    finished: bool
    active: int  # most requests unfinished at once
    moments: tuple[Moment, ...]  # every step, if they were asked for


def besiege(
    preset: Preset,
    siege: Siege,
    steps: int,
    *,
    enough: float = np.inf,
    watch: bool = False,
    scheduler_type: type[Scheduler] = Scheduler,
) -> Ordeal:
    """Run ``siege`` under ``preset`` for ``steps`` steps, or until its verdict is known.

    That is when the victim has finished or its gap is past ``enough``. ``watch`` keeps every step.
    """
    field_ = _Field(preset, siege, steps, scheduler_type)
    gap = since = active = 0
    gaps: list[int] = []
    moments: list[Moment] = []
    for step in range(steps):
        field_.arrivals(step)
        active = max(active, len(field_.loop.sequences))
        plan = field_.step()
        if watch:
            moments.append(field_.moment(plan))
        if VICTIM not in field_.unserved:
            since = 0
        elif field_.victim_came:
            since += 1
            gap = max(gap, since)
        gaps.append(gap)
        if field_.victim_done or gap > enough:
            break
    return Ordeal(
        gap=gap,
        gaps=tuple(gaps),
        redos=max(field_.redos.values(), default=0),
        open_gap=0 if field_.victim_done else since,
        steps=len(gaps),
        finished=field_.victim_done,
        active=active,
        moments=tuple(moments),
    )


class _Overheard(ServingLoop):
    """The serving loop, remembering the priorities of its last open decision."""

    heard: dict[int, float]

    def _score(self, sequences: Seq[Sequence], now_ns: int) -> list[float]:
        scores = super()._score(sequences, now_ns)
        ids = [sequence.request.request_id for sequence in sequences]
        self.heard = dict(zip(ids, scores, strict=True))
        return scores


@dataclass(slots=True)
class _Executor:
    """Runs plans without a model: a pattern answers for the entropy, a constant for the time."""

    siege: Siege
    generated: dict[int, int] = field(default_factory=dict)

    def execute(self, plan: Plan) -> Result:
        """Give every sampled row one token."""
        entropies = [self._entropy(request_id) for request_id in plan.sampled]
        zeros = np.zeros(len(entropies), dtype=np.float32)
        h = np.array(entropies, dtype=np.float32)
        signals = TokenSignal(*(zeros for _ in TokenSignal._fields))._replace(h_cal=h, h_in=h)
        return Result(
            step=plan.step,
            tokens=(TOKEN,) * len(entropies),
            finished={},
            signals=signals,
            commands=zeros,
            h_applied=h,
            surprisal=zeros,
            page_units_read=len(plan.rows),
            page_units_dense=len(plan.rows),
            duration_ns=round(self.siege.step_s * NS_PER_S),
        )

    def _entropy(self, request_id: int) -> float:
        position = self.generated.get(request_id, 0)
        self.generated[request_id] = position + 1
        return 0.0 if request_id == VICTIM or position % 2 else WARM_NATS


class _Field:
    """The loop, the executor, the clock and the adversary of one siege."""

    def __init__(
        self, preset: Preset, siege: Siege, steps: int, scheduler_type: type[Scheduler]
    ) -> None:
        oracle = _lengths(siege, steps) if preset.priority.oracle else None
        self.loop = _Overheard(
            siege.limits, preset, siege.step_law, oracle=oracle, scheduler_type=scheduler_type
        )
        self.loop.heard = {}
        self.redos: dict[int, int] = {}
        self._quantum = np.inf if preset.quantum_tokens is None else preset.quantum_tokens
        self.victim_came = self.victim_done = False
        self.unserved: set[int] = {VICTIM}
        self._siege = siege
        self._executor = _Executor(siege)
        self._now_ns = 0
        self._next_id = VICTIM + 1

    def arrivals(self, step: int) -> None:
        """Send who is due at this step."""
        siege = self._siege
        fresh_from, victim_at = (siege.lead, 0) if siege.victim_first else (0, siege.lead)
        if step == victim_at:
            self.loop.submit(siege.victim, self._now_ns)
            self.victim_came = True
        if step < fresh_from:
            return
        # The first crowd comes at once, so that no slot is left for the victim.
        batch = siege.crowd if step == fresh_from else int((step - fresh_from) % siege.period == 0)
        room = siege.crowd - sum(i != VICTIM for i in self.loop.sequences)
        for _ in range(min(batch, room)):
            request = dataclasses.replace(
                siege.fresh, request_id=self._next_id, client=f"client {self._next_id}"
            )
            self.loop.submit(request, self._now_ns)
            self._next_id += 1

    def step(self) -> Plan:
        """Plan, execute and observe once; note whether the victim was served."""
        self.loop.heard = {}
        plan = self.loop.plan(self._now_ns)
        for request_id in plan.preempted:
            cut_short = self.loop.sequences[request_id].quantum_used < self._quantum
            self.redos[request_id] = self.redos.get(request_id, 0) + cut_short
        served: Iterable[int] = (row.request_id for row in plan.rows)
        if self._siege.tokens_count:
            served = plan.sampled
        self.unserved = {VICTIM} - set(served)
        if not plan.rows:  # preemption alone, or nobody there: time passes all the same
            self._now_ns += round(self._siege.step_s * NS_PER_S)
            return plan
        result = self._executor.execute(plan)
        self._now_ns += result.duration_ns
        for request_id in self.loop.observe(result, self._now_ns):
            self._executor.generated.pop(request_id, None)
            self.victim_done |= request_id == VICTIM
        return plan

    def moment(self, plan: Plan) -> Moment:
        """Return the step just taken, with the priorities its decision was made by."""
        heard = self.loop.heard
        rivals = [score for request_id, score in heard.items() if request_id != VICTIM]
        return Moment(
            plan.step,
            tuple(row.request_id for row in plan.rows),
            plan.preempted,
            heard.get(VICTIM),
            max(rivals, default=None),
        )


def _lengths(siege: Siege, steps: int) -> dict[int, int]:
    """Return the true output length of everyone who may come, for laws that are oracles."""
    ids = range(VICTIM + 1, VICTIM + 2 + siege.crowd + steps)
    return {VICTIM: siege.victim.max_tokens, **dict.fromkeys(ids, siege.fresh.max_tokens)}
