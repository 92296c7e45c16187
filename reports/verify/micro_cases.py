"""Cases of the micro properties: the plants an adversary may choose, and lanes run by plant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from controllers.certificates.wrapping import bare
from controllers.compose import Chain, Delay, Gated, Shadow
from reports.verify.micro_loop import STAR_HIGH, STAR_LOW, USER_HIGH, USER_LOW
from reports.verify.plants import (
    Levels,
    Plant,
    peak_levels,
    random_rows,
    recorded_rows,
    share_out,
)
from reports.verify.property import Cases, Choice, Measured, Number, Space, n_lanes

BATCH = 4_096  # lanes at once: more would leave the cache, and 256 steps fill 50 MB
VOCABULARY = 50_257
MAX_SEED = 2**20 - 1
PLANTS = ("peak", "levels", "random", "recorded")
SPREAD = 24.0  # largest logit scale; ln n is 10.8

START_SPACE: Space = {
    "side": Choice(("hot", "cold")),  # of the equilibrium on which the user's T lies
    "start": Number(1e-3, 1.5, log=True),  # how far from it, ln T
}


def plant_space(law: Any) -> Space:
    """Return what chooses a plant, and an equilibrium that ``law`` can reach."""
    low, high = star_range(law)
    return {
        "plant": Choice(PLANTS),
        "n": Number(2, VOCABULARY, integer=True),  # outcomes of peak and levels
        "seed": Number(0, MAX_SEED, integer=True),  # of random logits, noise, the recorded row
        "spread": Number(0.1, SPREAD, log=True),  # logit scale of levels and random
        "z1": Number(-1.0, 1.0),  # logits of levels 1 to 3, in spreads; level 0 has logit 0
        "z2": Number(-1.0, 1.0),
        "z3": Number(-1.0, 1.0),
        "share1": Number(0.0, 1.0),  # exponents: outcomes of levels 1 and 2
        "share2": Number(0.0, 1.0),
        "t_star": Number(math.exp(low), math.exp(high), log=True),  # T of the equilibrium
        "pace": Number(1, 16, integer=True),  # tokens per step: position grows as fast
    }


def star_range(law: Any) -> tuple[float, float]:
    """Return where the equilibrium may lie, ln T: [ln .4, ln 1.5] between the law's clips.

    A law that declares no ``x_min`` and ``x_max`` is taken to reach all of it.
    """
    inner = bare(law)
    core = law if inner is None else inner.law
    fields = dataclasses.fields(core) if dataclasses.is_dataclass(core) else ()
    clips = {f.name: getattr(core, f.name) for f in fields if f.name in ("x_min", "x_max")}
    low = max(STAR_LOW, float(clips.get("x_min", STAR_LOW)))
    high = min(STAR_HIGH, float(clips.get("x_max", STAR_HIGH)))
    return (low, high) if low < high else (STAR_LOW, STAR_HIGH)


def x_star(cases: Cases) -> np.ndarray:
    """Return ln T of the equilibrium, ``[B]``."""
    return np.log(np.asarray(cases["t_star"], np.float64))


def x_user(cases: Cases) -> np.ndarray:
    """Return the user's ln T, where the run starts, ``[B]``, in [ln .3, ln 1.8]."""
    away = np.where(cases["side"] == "hot", cases["start"], -cases["start"])
    return np.clip(x_star(cases) + away, USER_LOW, USER_HIGH)


def pace_of(cases: Cases) -> np.ndarray | int:
    """Return the tokens per step, int ``[B]``; 1 where the cases do not say."""
    return np.asarray(cases.get("pace", 1), np.int64)


def plant_of(kind: str, cases: Cases) -> Plant:
    """Build the plants of lanes that all chose ``kind``."""
    match kind:
        case "peak":
            return peak_levels(cases["n"], x_star(cases))
        case "levels":
            z = np.stack([np.zeros(n_lanes(cases)), *(cases[f"z{i}"] for i in (1, 2, 3))])
            shares = np.stack([cases["share1"], cases["share2"]])
            return Levels(z=z * cases["spread"], count=share_out(cases["n"], shares))
        case "random":
            return random_rows(cases["seed"], cases["spread"])
        case "recorded":
            return recorded_rows(cases["seed"])
    raise ValueError(f"plant must be one of {PLANTS}; got {kind!r}")


def by_plant(cases: Cases) -> Iterator[tuple[np.ndarray, Cases, Plant]]:
    """Yield lane numbers, their cases and their plant, in batches of one kind of plant."""
    kinds = np.asarray(cases["plant"])
    for kind in np.unique(kinds):
        lanes = np.flatnonzero(kinds == kind)
        for start in range(0, len(lanes), BATCH):
            some = lanes[start : start + BATCH]
            picked = {name: np.asarray(column)[some] for name, column in cases.items()}
            yield some, picked, plant_of(str(kind), picked)


def measure_by_plant(cases: Cases, one: Callable[[Cases, Plant], Measured]) -> Measured:
    """Apply ``one`` batch by batch and put the lanes back in order."""
    value, bound = np.full((2, n_lanes(cases)), math.nan)
    for lanes, picked, plant in by_plant(cases):
        value[lanes], bound[lanes] = one(picked, plant)
    return Measured(value, bound)


def temperature_unfit(law: Any) -> str:
    """Return why ``law`` is no temperature law, or an empty string."""
    reads = callable(getattr(law, "x_in", None))
    return "" if reads else "no x_in: not a temperature law"


def delay_of(law: Any) -> int:
    """Return by how many steps the filters around a law delay its command."""
    match law:
        case Gated(law=inner) | Shadow(applied=inner):
            return delay_of(inner)
        case Chain(law=inner, filters=filters):
            own = sum(stage.steps for stage in filters if isinstance(stage, Delay))
            return own + delay_of(inner)
    return 0


def plant_words(case: dict[str, Any]) -> str:
    """Say which plant a case chose, with the parameters that matter to it."""
    match case["plant"]:
        case "peak":
            return f"{case['n']} outcomes whose varentropy is largest at T = {case['t_star']:.4g}"
        case "levels":
            one = {name: np.array([value]) for name, value in case.items()}
            plant = plant_of("levels", one)
            assert isinstance(plant, Levels)
            pairs = zip(plant.count[:, 0], plant.z[:, 0], strict=True)
            return "outcomes x logit: " + ", ".join(f"{c:.0f} x {z:.3g}" for c, z in pairs if c)
        case "random":
            return f"64 Gaussian logits, deviation {case['spread']:.3g}, seed {case['seed']}"
    row = int(recorded_rows(np.array([case["seed"]])).rows[0])
    return f"token in row {row} of the committed trace"
