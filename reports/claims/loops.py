"""Random micro loops for the judges: logits that stay, a reachable set-point, a law, a start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from controllers.compose import delayed
from controllers.core import TemperatureLaw
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback, FixedTemperature, SeedLiteral
from reports.claims.context import Context
from reports.verify.draw import draw
from reports.verify.micro_cases import START_SPACE, by_plant, plant_space, x_star, x_user
from reports.verify.micro_loop import Loop, Path, run
from reports.verify.plants import Plant
from reports.verify.property import Cases

LawOf = Callable[[float], TemperatureLaw]  # from a gain, ln T per nat

GAINS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # the paper gives no value
SENSITIVE = 0.01  # nats^2; below this V a multiplier is 1 to the third digit
NUDGE = 1e-4  # ln T; a small error, for multipliers
GRID = 129  # points of ln T between the clips
ON_CLIP = 1e-3  # ln T
MISS_NATS = 0.01  # a clip this near the set-point in entropy is as good as the set-point


def printed(gain: float) -> TemperatureLaw:
    """Return the law of section 3.3 as printed."""
    return SeedLiteral(eta=gain)


def minus(gain: float) -> TemperatureLaw:
    """Return the printed law with its sign turned, and nothing else changed."""
    return EntropyFeedback(gain=gain, c=math.inf, rate=math.inf)


def as_served(gain: float) -> TemperatureLaw:
    """Return the printed law applied one token later, as printed."""
    return delayed(SeedLiteral(eta=gain))


def draw_cases(context: Context, stream: int, n: int) -> Cases:
    """Draw plants, equilibria in [.4, 1.5] and starting points."""
    space = {**plant_space(FixedTemperature()), **START_SPACE}
    return draw(space, context.rng(stream), n)


def gather(cases: Cases, one: Callable[[Cases, Plant], Any]) -> np.ndarray:
    """Return the columns ``[k, B]`` that ``one`` computes, plant by plant, lanes back in order."""
    parts = [(lanes, np.asarray(one(picked, plant))) for lanes, picked, plant in by_plant(cases)]
    lanes = np.concatenate([where for where, _ in parts])
    return np.concatenate([columns for _, columns in parts], axis=-1)[..., np.argsort(lanes)]


def multiplier(law: TemperatureLaw, plant: Plant, star: np.ndarray) -> np.ndarray:
    """Return by what one step multiplies a small error of ln T, ``[B]``."""
    path = run(law, plant, Loop(steps=1, x_user=star + NUDGE, x_star=star))
    return path.error[0] / path.error_in[0]


def slopes(
    plant: Plant, low: float = X_MIN, high: float = X_MAX
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return min and max of V = dH/dlnT, and the paper's L = max dH/dT, on a grid, ``[B]``."""
    grid = np.linspace(low, high, GRID)
    v = np.stack([plant.response(np.full(plant.lanes, x))[1] for x in grid])
    return v.min(axis=0), v.max(axis=0), (v * np.exp(-grid)[:, None]).max(axis=0)


def closed(law: TemperatureLaw, cases: Cases, plant: Plant, steps: int) -> Path:
    """Run the loop on logits that stay, from the drawn start."""
    return run(law, plant, Loop(steps=steps, x_user=x_user(cases), x_star=x_star(cases)))


def endings(law: TemperatureLaw, cases: Cases, steps: int) -> np.ndarray:
    """Return, ``[6, B]``: on T_min, on T_max, |error| at first and last, H and H* at the end."""

    def one(picked: Cases, plant: Plant) -> np.ndarray:
        path = closed(law, picked, plant, steps)
        last = path.u[-1]
        first = np.maximum(np.abs(path.error[0]), np.abs(path.error_in[0]))
        cold, hot = np.abs(last - X_MIN) < ON_CLIP, np.abs(last - X_MAX) < ON_CLIP
        h = plant.response(last)[0]
        return np.stack([cold, hot, first, np.abs(path.error[-1]), h, path.target[-1]])

    return gather(cases, one)


def stuck(ends: np.ndarray) -> np.ndarray:
    """Return which ``endings`` lie on a clip with H away from H*, bool ``[B]``."""
    cold, hot, _, _, h, target = ends
    return (np.maximum(cold, hot) > 0.0) & (np.abs(h - target) > MISS_NATS)
