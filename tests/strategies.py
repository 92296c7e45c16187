"""Hypothesis strategies shared by the suites: logits, temperatures, one-lane signals."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from controllers.core import LoadSignal, TokenSignal

Float64 = NDArray[np.float64]


@st.composite
def logits(draw: st.DrawFn, max_n: int = 40) -> Float64:
    """Draw one row of logits: random, tied, needle-like, or partly masked; never all masked."""
    n = draw(st.integers(2, max_n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    row = rng.normal(0.0, draw(st.floats(0.0, 20.0)), n)
    match draw(st.sampled_from(["random", "ties", "needle", "masked"])):
        case "ties":
            row = np.round(row / 4.0) * 4.0
        case "needle":
            row = np.zeros(n)
            row[0] = draw(st.floats(0.0, 30.0))
        case "masked":
            row[rng.random(n) < 0.5] = -np.inf
            row[0] = 0.0
    return row


log_temperatures = st.floats(-1.2, 0.6)  # T from .30 to 1.82


def token_signal(lanes: int = 1, dtype: type = np.float64, **fields: ArrayLike) -> TokenSignal:
    """Build a token signal of ``lanes`` lanes; the rest is harmless: on, uncapped, T = 1."""
    rest = TokenSignal(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, np.inf, 1.0, 0.0)
    values = {**rest._asdict(), **fields}
    return TokenSignal(
        **{k: np.broadcast_to(np.asarray(v, dtype), (lanes,)).copy() for k, v in values.items()}
    )


def load_signal(lanes: int = 1, **fields: ArrayLike) -> LoadSignal:
    """Build a load signal of ``lanes`` lanes; fields not given describe a fresh request."""
    rest = LoadSignal(
        age_s=0.0,
        wait_s=0.0,
        slack_s=10.0,
        cost_s=0.1,
        pages_held=0.0,
        pages_needed=10.0,
        collapse_nats=0.7,
        completion=0.0,
        wait_steps=0.0,
        served_s=0.0,
        prefill_s=0.01,
        token_s=0.001,
        user_priority=0.0,
        predicted_tokens=100.0,
        client_service=0.0,
        oracle_tokens=np.nan,
    )
    values = {**rest._asdict(), **fields}
    return LoadSignal(
        **{
            k: np.broadcast_to(np.asarray(v, np.float32), (lanes,)).copy()
            for k, v in values.items()
        }
    )
