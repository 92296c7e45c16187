"""Signals for the contract: seeded, float32, with the corners a served lane can meet."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np

from controllers.core import LoadSignal, TokenSignal, tree_map
from controllers.ops import Array

KEPT_WHEN_EXTREME = frozenset({"x_user", "x_cap", "enabled", "position", "oracle_tokens"})
ORACLE_FIELD = "oracle_tokens"


def token_signals(steps: int, lanes: int, seed: int = 0) -> list[TokenSignal]:
    """Return plausible token signals; a quarter of the lanes is switched off, half are capped."""
    rng = np.random.default_rng(seed)
    x_user = rng.uniform(-1.5, 0.7, lanes)
    capped = rng.random(lanes) < 0.5
    enabled = rng.random(lanes) < 0.75
    target = rng.uniform(0.5, 3.0, lanes)

    def one(step: int) -> TokenSignal:
        fields = TokenSignal(
            h_cal=rng.gamma(1.0, 1.5, lanes),
            v_cal=rng.gamma(1.0, 1.5, lanes),
            h_in=rng.gamma(1.0, 1.5, lanes),
            v_in=np.where(rng.random(lanes) < 0.2, 0.0, rng.gamma(1.0, 2.0, lanes)),
            surprisal=rng.gamma(1.0, 1.5, lanes),
            target_nats=target,
            x_user=x_user,
            x_cap=np.where(capped, x_user, np.inf),
            enabled=enabled,
            position=np.full(lanes, step),
        )
        return TokenSignal(*(np.asarray(f, dtype=np.float32) for f in fields))

    return [one(step) for step in range(steps)]


def load_signals(steps: int, lanes: int, seed: int = 0) -> list[LoadSignal]:
    """Return plausible load signals: fresh, waiting and late requests of all sizes.

    Fields this module does not know are non-negative numbers about one; the true remaining length
    is known for half of the lanes and NaN for the others.
    """
    rng = np.random.default_rng(seed)
    oracle = np.where(rng.random(lanes) < 0.5, rng.integers(1, 500, lanes), np.nan)

    def one() -> LoadSignal:
        age = rng.exponential(8.0, lanes)
        known = {
            "age_s": age,
            "wait_s": age * rng.random(lanes),
            "slack_s": 10.0 - age,
            "cost_s": rng.exponential(0.3, lanes),
            "pages_held": rng.integers(0, 200, lanes),
            "pages_needed": rng.integers(0, 100, lanes),
            "collapse_nats": rng.exponential(0.7, lanes),
            "completion": rng.random(lanes),
            "wait_steps": rng.integers(0, 400, lanes),
            "prefill_s": rng.exponential(0.3, lanes),
            "user_priority": rng.integers(-2, 3, lanes),
            "predicted_tokens": rng.integers(1, 500, lanes),
            "client_service": rng.exponential(100.0, lanes),
            ORACLE_FIELD: oracle,
        }
        fields = (
            known[name] if name in known else rng.exponential(1.0, lanes)
            for name in LoadSignal._fields
        )
        return LoadSignal(*(np.asarray(f, dtype=np.float32) for f in fields))

    return [one() for _ in range(steps)]


def extreme(signal: TokenSignal | LoadSignal, seed: int = 1) -> TokenSignal | LoadSignal:
    """Replace every measured field by finite values up to 1e30 of either sign, and zeros."""
    rng = np.random.default_rng(seed)
    values = np.array([0.0, -1e30, 1e30, -1.0, 1e-30, 1e9], dtype=np.float32)
    wild = {
        name: rng.choice(values, size=field.shape)
        for name, field in signal._asdict().items()
        if name not in KEPT_WHEN_EXTREME
    }
    return signal._replace(**wild)


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def to_torch(tree: Array, device: str = "cpu") -> Array:
    """Copy a tree of numpy arrays into torch tensors."""
    import torch

    return tree_map(lambda leaf: torch.from_numpy(leaf.copy()).to(device), tree)


def leaves(tree: Array) -> list[Array]:
    """List the arrays of a nested tuple, left to right."""
    return list(_walk(tree))


def _walk(tree: Array) -> Iterator[Array]:
    if not isinstance(tree, tuple):
        yield tree
        return
    for part in tree:
        yield from _walk(part)
