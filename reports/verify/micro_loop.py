"""The micro loop in closed form: a temperature law, a plant, and what an adversary does to both."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from controllers.core import TokenSignal, require
from reports.verify.hashing import uniforms
from reports.verify.plants import Plant

STAR_LOW, STAR_HIGH = math.log(0.4), math.log(1.5)  # where the equilibrium may lie
USER_LOW, USER_HIGH = math.log(0.3), math.log(1.8)  # where a run may start
NOISES = ("worst", "constant", "alternating", "random")
DRIFTS = ("flee", "sweep")
OLDEST = 2  # steps a sensor may be late


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One closed-loop run of B lanes. H* is the plant's entropy at ``x_star``: always reachable.

    The equilibrium starts at ``x_star`` and moves by ``drift`` a step: *flee* away from the last
    command, *sweep* back and forth, both inside [low, high]. Measured entropy is off by at most
    ``noise_nats``: *worst* hides the error, so that a stabilising law is pushed away. The sensor
    reports what held ``late`` steps ago. For ``forced_steps`` the set-point is ``forced_nats``.
    ``pace`` tokens come per step, so that what a law does at late positions is seen in short runs.
    """

    steps: int
    x_user: np.ndarray  # [B]
    x_star: np.ndarray  # [B]
    noise_nats: np.ndarray | float = 0.0
    noise: np.ndarray = field(default_factory=lambda: np.array(["worst"]))  # str [B]
    drift: np.ndarray | float = 0.0  # ln T a step
    path: np.ndarray = field(default_factory=lambda: np.array(["flee"]))  # str [B]
    late: np.ndarray | int = 0  # steps, int [B]
    seed: np.ndarray | int = 0  # of the random noise, int [B]
    low: float = STAR_LOW
    high: float = STAR_HIGH
    forced_nats: np.ndarray | float = 0.0
    forced_steps: int = 0
    x_cap: np.ndarray | float = math.inf  # ln T [B]
    pace: np.ndarray | int = 1  # tokens per step, int [B]

    def __post_init__(self) -> None:
        require(self.steps >= 1, "a run takes one step or more", steps=self.steps)
        require(bool(np.all(np.asarray(self.noise_nats) >= 0.0)), "noise_nats must be >= 0")
        late = np.asarray(self.late)
        require(bool(np.all((late >= 0) & (late <= OLDEST))), "late is 0, 1 or 2", late=late.max())


class Path(NamedTuple):
    """What happened, float64 ``[t, B]``; ``h_in`` and ``v_in`` are the plant's, without noise."""

    x_in: np.ndarray  # ln T at which the law had the entropy measured
    u: np.ndarray  # ln T commanded
    x_star: np.ndarray  # ln T of the equilibrium
    h_in: np.ndarray  # nats
    v_in: np.ndarray  # nats^2
    target: np.ndarray  # nats

    @property
    def error(self) -> np.ndarray:
        """Return the command's distance from the equilibrium, signed, ln T ``[t, B]``."""
        return self.u - self.x_star

    @property
    def error_in(self) -> np.ndarray:
        """Return the distance of the measuring point from the equilibrium, ln T ``[t, B]``."""
        return self.x_in - self.x_star


def run(law: Any, plant: Plant, loop: Loop, *, last: int | None = None) -> Path:
    """Close the loop of a temperature law around ``plant``; keep the ``last`` steps, or all."""
    with np.errstate(all="ignore"):  # a law may command anything; the properties judge it
        return _run(law, plant, loop, last)


def _run(law: Any, plant: Plant, loop: Loop, last: int | None) -> Path:
    lanes = plant.lanes
    x_star = _lanes(loop.x_star, lanes)
    set_point = plant.response(x_star)[0]
    moved, heading = np.zeros(lanes), np.ones(lanes)  # of the equilibrium so far; where it sweeps
    moves, noisy = np.any(loop.drift), np.any(loop.noise_nats)
    cal = plant.response(moved)
    seen: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=OLDEST + 1)
    state, rows = None, deque(maxlen=last)
    for t in range(loop.steps):
        forced = t < loop.forced_steps
        target = _lanes(loop.forced_nats, lanes) if forced else set_point
        wishes = {"x_user": loop.x_user, "x_cap": loop.x_cap, "target_nats": target}
        base = token_signal(lanes, **wishes, position=t * np.asarray(loop.pace))
        state = law.init(base) if state is None else state
        x_in = _lanes(law.x_in(state), lanes)
        h, v = plant.response(x_in - moved)
        cal = plant.response(-moved) if moves else cal
        off = _noise(loop, t, x_in - x_star - moved) if noisy else 0.0
        seen.appendleft((h + off, v))
        h_seen, v_seen = _late(seen, loop.late)
        measured = {"h_in": h_seen, "v_in": v_seen, "h_cal": cal[0], "v_cal": cal[1]}
        signal = base._replace(**measured, surprisal=cal[0])
        state, command = law.update(state, signal)
        u = _lanes(command, lanes)
        rows.append((x_in, u, x_star + moved, h, v, target))
        if moves:
            moved, heading = _drifted(loop, x_star, moved, heading, u)
    return Path(*(np.stack(column) for column in zip(*rows, strict=True)))


def _lanes(values: Any, lanes: int) -> np.ndarray:
    # A copy: a law may reuse its buffers, and a path must keep what was.
    return np.array(np.broadcast_to(np.asarray(values, np.float64), (lanes,)))


def token_signal(lanes: int, **fields: Any) -> TokenSignal:
    """Return a float64 signal ``[B]``; what is not named is zero, uncapped and enabled."""
    quiet = dict.fromkeys(TokenSignal._fields, 0.0) | {"x_cap": math.inf, "enabled": 1.0}
    return TokenSignal(**{k: _lanes(v, lanes) for k, v in (quiet | fields).items()})


def _late(
    seen: deque[tuple[np.ndarray, np.ndarray]], late: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measurement of ``late`` steps ago, or the first one; copies, for the law."""
    ages = [seen[min(age, len(seen) - 1)] for age in range(OLDEST + 1)]
    h, v = (np.choose(late, [pair[i] for pair in ages]) for i in range(2))
    return np.array(h), np.array(v)


def _noise(loop: Loop, t: int, error: np.ndarray) -> np.ndarray:
    """Return the sensor's error at step ``t``, nats ``[B]``."""
    seed = _lanes(loop.seed, len(error)).astype(np.int64)
    constant = np.where(seed % 2 == 0, 1.0, -1.0)
    unit = np.select(
        [loop.noise == kind for kind in NOISES],
        [
            np.where(error >= 0.0, -1.0, 1.0),
            constant,
            constant * (1.0 if t % 2 == 0 else -1.0),
            2.0 * uniforms(seed, 1, t)[:, 0] - 1.0,
        ],
    )
    return unit * loop.noise_nats


def _drifted(
    loop: Loop, x_star: np.ndarray, moved: np.ndarray, heading: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the equilibrium has moved after one more step, and where it heads."""
    now = x_star + moved
    flee = np.where(now >= u, 1.0, -1.0)
    swept = now + heading * loop.drift
    heading = np.where(swept > loop.high, -1.0, np.where(swept < loop.low, 1.0, heading))
    way = np.where(loop.path == "flee", flee, heading)
    after = np.minimum(np.maximum(now + way * loop.drift, loop.low), loop.high)
    return after - x_star, heading
