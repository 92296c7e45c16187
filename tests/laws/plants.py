"""Plants the micro laws are run on: fixed logits, and a linear response driven by AR(1) entropy."""

from __future__ import annotations

import math

import numpy as np

from controllers.core import TemperatureLaw
from controllers.entropy import entropy_varentropy
from controllers.temperature import EntropyFeedback
from tests.strategies import Float64, token_signal

WIDE = {"x_min": -19.0, "x_max": 19.0}


def plain_feedback(gain: float) -> EntropyFeedback:
    """Return the feedback law with its rate limit, gain adaptation and clips out of the way."""
    return EntropyFeedback(gain=gain, c=1e9, rate=1e9, **WIDE)


def on_fixed_logits(
    law: TemperatureLaw, row: Float64, x0: float, target_nats: float, steps: int
) -> Float64:
    """Run a law against one row of logits and return ln T, ``[steps + 1]``, from ``x0`` on."""
    state = law.init(token_signal(x_user=x0, target_nats=target_nats))
    path = [float(law.x_in(state)[0])]
    for _ in range(steps):
        h, v = entropy_varentropy(row, law.x_in(state))
        signal = token_signal(h_in=h, v_in=v, x_user=x0, target_nats=target_nats)
        state, command = law.update(state, signal)
        path.append(float(command[0]))
    return np.array(path)


def ar1(rho: float, lanes: int, steps: int, seed: int = 0) -> Float64:
    """Return stationary unit-variance AR(1) paths, ``[steps, lanes]``."""
    rng = np.random.default_rng(seed)
    path = np.empty((steps, lanes))
    path[0] = rng.normal(size=lanes)
    for t in range(1, steps):
        path[t] = rho * path[t - 1] + math.sqrt(1 - rho * rho) * rng.normal(size=lanes)
    return path


def on_linear_plant(
    gain: float, v: float, noise: Float64, delay: int = 0
) -> tuple[Float64, Float64]:
    """Run plain feedback on H = noise + v x; return errors at x_in and at the command, ``[t, B]``.

    With ``delay`` = m the law reads the error of m steps ago.
    """
    law, lanes = plain_feedback(gain), noise.shape[1]
    state = law.init(token_signal(lanes))
    measured, applied = [], []
    for t, open_loop in enumerate(noise):
        measured.append(open_loop + v * law.x_in(state))
        signal = token_signal(lanes, h_in=measured[max(0, t - delay)], v_in=v, target_nats=0.0)
        state, command = law.update(state, signal)
        applied.append(open_loop + v * command)
    return np.array(measured), np.array(applied)
