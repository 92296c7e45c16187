"""Rows a sampler must survive, with their signals, and a loop that draws, accepts and rejects."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from controllers.core import State, TokenSignal, take_lanes
from controllers.ops import Array
from controllers.samplers import rows as row_ops
from controllers.temperature import X_GREEDY
from reports.verify.contract.signals import token_signals

KINDS = ("plain", "ties", "flat", "needle", "masked", "single", "huge", "two_level")
ROWS = ("mixed", *KINDS)  # mixed: lane i is of kind i modulo their number
REJECTED = 0.25  # share of lanes and steps that keep no token
HUGE = 1e4  # logits; far beyond any model, far within float32


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerTrial:
    """``steps`` batches of ``lanes`` rows of ``n`` logits drawn from ``seed``."""

    seed: int = 0
    rows: str = "mixed"  # one of ROWS
    lanes: int = 16
    steps: int = 6
    n: int = 64
    field: str = ""  # a field of the signal to spoil
    value: str = "nan"  # nan, inf or -inf


class Scene(NamedTuple):
    """What a sampler is shown: one entry per step, float32, lanes leading."""

    logits: list[Array]  # [B, n], -inf where masked, one finite logit at least
    signals: list[TokenSignal]
    noise: Array  # [steps, B], float64 in [0, 1): for the draws
    rejected: Array  # [steps, B], bool: the drawn token is not kept

    def only(self, index: Array) -> Scene:
        """Return the lanes ``index``, in that order."""
        return Scene(
            [logits[index] for logits in self.logits],
            [take_lanes(signal, index) for signal in self.signals],
            self.noise[:, index],
            self.rejected[:, index],
        )

    def wide(self) -> Scene:
        """Return the scene in float64."""
        signals = [TokenSignal(*(f.astype(np.float64) for f in s)) for s in self.signals]
        return self._replace(logits=[z.astype(np.float64) for z in self.logits], signals=signals)


class Run(NamedTuple):
    """What a sampler did: ``states`` has one entry more, the first being the fresh one."""

    shaped: list[Any]
    states: list[State]
    tokens: list[Array]  # int64 [B], -1 where nothing was kept


def scene_of(trial: SamplerTrial) -> Scene:
    """Return the scene of a trial; equal trials give equal scenes."""
    rng = np.random.default_rng([trial.seed, 11])
    kinds = [trial.rows] * trial.lanes
    if trial.rows == "mixed":
        kinds = [KINDS[i % len(KINDS)] for i in range(trial.lanes)]
    logits = [
        np.stack([_row(kind, rng, trial.n) for kind in kinds]).astype(np.float32)
        for _ in range(trial.steps)
    ]
    shape = (trial.steps, trial.lanes)
    noise, rejected = rng.random(shape), rng.random(shape) < REJECTED
    return Scene(logits, _signals(trial), noise, rejected)


def run(sampler: Any, scene: Scene, tokens: list[Array] | None = None) -> Run:
    """Shape, draw and accept, step by step; ``tokens`` are taken instead of draws where given."""
    states, shaped, kept = [sampler.init(scene.signals[0])], [], []
    for step, (logits, signal) in enumerate(zip(scene.logits, scene.signals, strict=True)):
        shaped.append(sampler.shape(states[-1], logits, signal))
        token = drawn(shaped[-1], scene, step) if tokens is None else tokens[step]
        kept.append(token)
        states.append(sampler.accept(states[-1], shaped[-1], token))
    return Run(shaped, states, kept)


def drawn(shaped: Any, scene: Scene, step: int) -> Array:
    """Return the tokens drawn at ``step``, int64 ``[B]``; -1 where they are rejected."""
    token = np.minimum(row_ops.draw(np.asarray(shaped.logits), scene.noise[step]), _last(scene))
    return np.where(scene.rejected[step], -1, token).astype(np.int64)


def spoiled(scene: Scene, trial: SamplerTrial) -> Scene:
    """Return the scene with one field of the signal not finite, at the first and a later step."""
    bad = np.full(trial.lanes, float(trial.value), dtype=np.float32)
    signals = list(scene.signals)
    for step in {0, trial.steps // 2}:
        signals[step] = signals[step]._replace(**{trial.field: bad})
    return scene._replace(signals=signals)


def probe() -> Scene:
    """Return a mild scene with every lane under control, to see what kind a sampler is of."""
    scene = scene_of(SamplerTrial(rows="plain", lanes=8, steps=4, n=24))
    on = [s._replace(enabled=np.ones_like(s.enabled)) for s in scene.signals]
    return scene._replace(signals=on)


def others(trial: SamplerTrial) -> Scene:
    """Return another scene of the same size, of wild rows, for the neighbours of a lane."""
    return scene_of(dataclasses.replace(trial, seed=trial.seed + 17, rows="huge"))


def _row(kind: str, rng: np.random.Generator, n: int) -> Array:
    row = rng.normal(0.0, rng.choice([0.5, 2.0, 6.0]), n)
    one = int(rng.integers(n))
    match kind:
        case "ties":
            row = np.round(row)
        case "flat":
            row = np.full(n, row[0])
        case "needle":
            row[one] += 40.0
        case "masked":
            row = np.where((rng.random(n) < 0.7) & (np.arange(n) != one), -np.inf, row)
        case "single":
            row = np.where(np.arange(n) == one, row, -np.inf)
        case "huge":
            row = rng.uniform(-HUGE, HUGE, n)
        case "two_level":
            row = np.where(rng.random(n) < 0.5, HUGE, -HUGE)
    return row


def _signals(trial: SamplerTrial) -> list[TokenSignal]:
    signals = token_signals(trial.steps, trial.lanes, trial.seed)
    # Every fifth lane is greedy and out of control, as a server marks a request with T = 0.
    greedy = np.arange(trial.lanes) % 5 == 4
    return [
        s._replace(
            x_user=np.where(greedy, np.float32(X_GREEDY), s.x_user),
            x_cap=np.where(greedy & np.isfinite(s.x_cap), np.float32(X_GREEDY), s.x_cap),
            enabled=np.where(greedy, np.float32(0.0), s.enabled),
        )
        for s in signals
    ]


def _last(scene: Scene) -> int:
    return scene.logits[0].shape[-1] - 1
