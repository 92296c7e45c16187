"""Tables of the theory figures that search: the stability region and the service gap."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from controllers.certificates import linear_delay_limit
from controllers.core import TemperatureLaw
from controllers.entropy import max_varentropy
from controllers.preset import Preset
from controllers.priority import EntropyPriority, Fcfs, PriorityLaw, SeedPriority
from controllers.temperature import EntropyFeedback
from reports.verify.draw import draw
from reports.verify.micro_loop import Loop, run
from reports.verify.plants import Levels
from reports.verify.property import Case, Number, Space, case_of
from reports.verify.sieges import COMMON, QUANTUM, fresh_arrivals
from reports.verify.starvation import gap_bound, preset_of
from simulator.starvation import VICTIM, Ordeal, Siege, besiege

VOCABULARIES = (50_257, 128_256)  # GPT-2, Llama 3
DELAYS = (0, 1, 2)  # steps the sensor is late
LOW_GAIN, HIGH_GAIN = 0.005, 0.6  # ln T per nat
LOW_V, HIGH_V = 0.5, 60.0  # nats^2; the largest of 128,256 outcomes is 35.6
WIDE = (-19.0, 5.0)  # clips too far away to hold an oscillation
FIRST = 1e-3  # ln T off the equilibrium at the start: the boundary is a local one
EARLY, TAIL = 32, 64  # steps, as in micro.delay
FAR = 10.0  # times the first error; no loop on the stable side swings so far
EDGE = 1.3  # half the points lie within this factor of the boundary

SIEGE: Space = {
    **COMMON,
    **QUANTUM,
    "slots": Number(1, 2, integer=True),
    "crowd": Number(3, 6, integer=True),
    "quantum": Number(4, 8, integer=True),
    "victim_output": Number(48, 48, integer=True),
    "pressed": Number(0, 0, integer=True),
}
LAWS: tuple[tuple[str, PriorityLaw], ...] = (
    ("printed", SeedPriority()),
    ("aged", EntropyPriority()),
    ("arrival order", Fcfs()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Where small errors grew, point by point; ``[P]`` unless said otherwise."""

    gain: np.ndarray  # ln T per nat, of the plain law
    v: np.ndarray  # slope of H at the equilibrium, nats^2
    delay: np.ndarray  # steps, int
    diverged: np.ndarray  # bool
    limits: tuple[tuple[int, float], ...]  # delay, gain V on the boundary
    n_max: tuple[tuple[int, float], ...]  # outcomes, N_n in nats^2
    default_gain: float
    default_v: np.ndarray  # the default law, run at these V, every delay, [D]
    default_g: np.ndarray  # its gain there, min(gain, c/(V + v0)), [D]
    default_diverged: np.ndarray  # bool [delays, D]
    steps: int

    @property
    def misplaced(self) -> int:
        """Return how many points of the plain law lie on the wrong side of the boundary."""
        limit = np.vectorize(dict(self.limits).__getitem__)(self.delay)
        return int(np.sum((self.gain * self.v > limit) != self.diverged))

    def caption(self) -> str:
        """Return what the figure shows, with its numbers."""
        return (
            f"Line: gain V = 2 sin(π/(4m + 2)) for a sensor m steps late. {len(self.gain):,} runs "
            f"of {self.steps} steps on two-level logits, {self.misplaced} on the wrong side of the "
            f"line; the default law grew in {int(self.default_diverged.sum())} of "
            f"{self.default_diverged.size}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One law under siege: per step, how long the victim has waited and the longest wait yet."""

    law: str
    now: np.ndarray  # steps since its last service, int [t]
    longest: np.ndarray  # int [t]
    bound: float  # steps; infinite where theory has none
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGap:
    """The same siege under several orders of service."""

    waits: tuple[Wait, ...]
    case: Case
    drawn: int  # sieges of which this is the hardest for the aged law
    steps: int

    def caption(self) -> str:
        """Return what the figure shows, with its numbers."""
        case, aged = self.case, next(wait for wait in self.waits if wait.law == "aged")
        return (
            f"{case['crowd']} fresh requests kept alive beside one victim; slots: {case['slots']}, "
            f"quantum: {case['quantum']} tokens, step: {case['step_ms'] / 1000:g} s. Of "
            f"{self.drawn} sieges the nearest to its bound: {aged.longest[-1]} steps of "
            f"{aged.bound:.0f}, conservatism ratio {aged.bound / aged.longest[-1]:.2f}."
        )


def region(*, seed: int, columns: int = 56, per_column: int = 10, steps: int = 512) -> Region:
    """Run the plain law at random (gain, V, delay), half of them near the boundary.

    A point diverged if the error of the last 64 steps exceeds that of the first 32, or ten times
    the first. V is the slope at the equilibrium of a two-level row of 128,256 logits.
    """
    rng = np.random.default_rng(seed)
    most = max_varentropy(max(VOCABULARIES))
    gains = LOW_GAIN * (HIGH_GAIN / LOW_GAIN) ** (
        (np.arange(columns) + rng.random(columns)) / columns
    )
    late = np.tile(DELAYS, per_column)
    limit = np.vectorize(linear_delay_limit)(late)
    found = []
    for gain in gains:
        anywhere = LOW_V * (most / LOW_V) ** rng.random(len(late))
        near = limit / gain * EDGE ** rng.uniform(-1.0, 1.0, len(late))
        inside = (near > LOW_V) & (near < most) & (rng.random(len(late)) < 0.5)
        v = np.where(inside, near, anywhere)
        found.append((np.full(len(late), gain), v, late, _diverged(_plain(gain), v, late, steps)))
    gain, v, delay, diverged = (np.concatenate(column) for column in zip(*found, strict=True))
    default = EntropyFeedback()
    default_v = np.geomspace(LOW_V, most, 26)[:-1]
    shipped = dataclasses.replace(default, x_min=WIDE[0], x_max=WIDE[1])
    return Region(
        gain=gain,
        v=v,
        delay=delay,
        diverged=diverged,
        limits=tuple((m, linear_delay_limit(m)) for m in DELAYS),
        n_max=tuple((n, max_varentropy(n)) for n in VOCABULARIES),
        default_gain=default.gain,
        default_v=default_v,
        default_g=np.minimum(default.gain, default.c / (default_v + default.v0)),
        default_diverged=np.stack(
            [_diverged(shipped, default_v, np.full(len(default_v), m), steps) for m in DELAYS]
        ),
        steps=steps,
    )


def _plain(gain: float) -> EntropyFeedback:
    return EntropyFeedback(gain=gain, c=math.inf, rate=math.inf, x_min=WIDE[0], x_max=WIDE[1])


def _diverged(law: TemperatureLaw, v: np.ndarray, late: np.ndarray, steps: int) -> np.ndarray:
    x_star = np.zeros(len(v))
    loop = Loop(steps=steps, x_user=x_star + FIRST, x_star=x_star, late=late)
    error = np.abs(run(law, two_levels(v, max(VOCABULARIES)), loop).error)
    tail, early = error[-TAIL:].max(axis=0), error[:EARLY].max(axis=0)
    # Fast growth ends in a wide cycle within the early steps already.
    return (tail > early) | (tail > FAR * FIRST)


def two_levels(v: np.ndarray, n: int) -> Levels:
    """Return rows of ``n`` logits, one ahead of the rest, of varentropy ``v`` ``[B]`` at T = 1.

    V = (u + ln(n - 1))^2/(4 cosh^2(u/2)) falls in the log-odds u beyond its largest value N_n.
    """
    a = math.log(n - 1)
    peak = 2.0 * math.asinh(1.0 / math.sqrt(max_varentropy(n)))
    low, high = np.full(len(v), peak), np.full(len(v), 60.0)
    for _ in range(60):
        u = 0.5 * (low + high)
        above = (u + a) ** 2 / (4.0 * np.cosh(0.5 * u) ** 2) > v
        low, high = np.where(above, u, low), np.where(above, high, u)
    z = np.stack([high + a, np.zeros_like(high)])
    return Levels(z=z, count=np.stack([np.ones_like(high), np.full_like(high, n - 1.0)]))


def service_gap(*, seed: int, sieges: int = 120, steps: int = 300) -> ServiceGap:
    """Find the siege whose gap comes closest to the aged law's bound; run every law through it."""
    rng = np.random.default_rng(seed)
    cases = draw(SIEGE, rng, sieges)
    aged = EntropyPriority()

    def closeness(case: Case) -> float:
        preset, siege = preset_of(aged, case), fresh_arrivals(case)
        return besiege(preset, siege, steps).gap / gap_bound(preset, siege)

    case = max((case_of(cases, lane) for lane in range(sieges)), key=closeness)
    waits = tuple(
        _wait(name, preset_of(law, case), fresh_arrivals(case), steps) for name, law in LAWS
    )
    return ServiceGap(waits=waits, case=case, drawn=sieges, steps=steps)


def _wait(name: str, preset: Preset, siege: Siege, steps: int) -> Wait:
    ordeal = besiege(preset, siege, steps, watch=True)
    return Wait(
        law=name,
        now=_open_gaps(ordeal, siege),
        longest=np.array(ordeal.gaps),
        bound=gap_bound(preset, siege, ordeal.redos),
        finished=ordeal.finished,
    )


def _open_gaps(ordeal: Ordeal, siege: Siege) -> np.ndarray:
    """Return the steps since the victim's last service or arrival, int ``[t]``."""
    gaps, since = [], 0
    for step, moment in enumerate(ordeal.moments):
        served = VICTIM in moment.ran or step < siege.lead  # it arrives after ``lead`` steps
        since = 0 if served else since + 1
        gaps.append(since)
    return np.array(gaps)
