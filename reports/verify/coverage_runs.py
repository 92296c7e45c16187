"""Runs of coverage laws: hostile entropy sequences in, commands out, lane by lane."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from controllers.compose import Chain, Gated, Shadow
from controllers.core import Law, TokenSignal
from controllers.coverage import DENSE, HIGHEST_SPARSE
from reports.verify.property import Cases, Choice

MAX_SETTLE = 2048  # steps until a coverage counts as steady whatever it does
CHATTER_STEPS = 192
H_MAX = 12.0  # nats, above ln n of the largest vocabularies
PATTERNS = Choice(("alternate", "random", "ramp"))

Column = np.ndarray  # [B]


def token_signal(lanes: int, **fields: Any) -> TokenSignal:
    """Return a harmless token signal, float32 ``[lanes]``, with the given fields in it."""
    rest = {"target_nats": 1.0, "x_cap": math.inf, "enabled": 1.0}
    values = {name: fields.get(name, rest.get(name, 0.0)) for name in TokenSignal._fields}
    return TokenSignal(
        **{k: np.array(np.broadcast_to(v, (lanes,)), dtype=np.float32) for k, v in values.items()}
    )


def gain_of(law: Any, name: str) -> float | None:
    """Return the gain ``name`` of a law or of the law it wraps; None where there is none."""
    inner = _inner(law)
    fields = dataclasses.fields(inner) if dataclasses.is_dataclass(inner) else ()
    return float(getattr(inner, name)) if name in {f.name for f in fields} else None


def with_gain(law: Any, name: str, value: float) -> Any:
    """Return ``law`` with its gain ``name`` changed, inside its wrappers if it has any."""
    if isinstance(law, Gated | Chain):
        return dataclasses.replace(law, law=with_gain(law.law, name, value))
    if isinstance(law, Shadow):
        return dataclasses.replace(law, applied=with_gain(law.applied, name, value))
    return dataclasses.replace(law, **{name: value})


def _inner(law: Any) -> Any:
    match law:
        case Gated(law=inner) | Chain(law=inner) | Shadow(applied=inner):
            return _inner(inner)
    return law


def need(law: Law, name: str) -> float:
    """Return a gain that the law must have."""
    value = gain_of(law, name)
    assert value is not None, "measured a law that is unfit"
    return value


def hold_steps(law: Law) -> int:
    """Return the steps without a change after which a coverage rests: 4 dwells or more."""
    return max(16, 4 * int(gain_of(law, "dwell") or 0))


def chatter_steps(law: Law) -> int:
    """Return the steps of a chatter run: eight dwells or more."""
    return min(max(CHATTER_STEPS, 8 * int(need(law, "dwell"))), MAX_SETTLE)


def run(law: Law, entropies: list[Column], masks: list[Column]) -> np.ndarray:
    """Return the commands ``[T, B]`` of fresh lanes under these entropies, enabled by ``masks``."""
    signals = [
        _entropy_signal(h, t)._replace(enabled=on.astype(np.float32))
        for t, (h, on) in enumerate(zip(entropies, masks, strict=True))
    ]
    state, commands = law.init(signals[0]), []
    for signal in signals:
        state, command = law.update(state, signal)
        commands.append(np.asarray(command, dtype=np.float64))
    return np.stack(commands)


def rest(law: Law, h: Column, before: Column) -> Column:
    """Return where coverage rests at ``h`` after a spell at ``before``, float64 ``[B]``."""
    hold = hold_steps(law)
    state = law.init(_entropy_signal(before, 0))
    for t in range(hold):
        state, _ = law.update(state, _entropy_signal(before, t))
    last, still, command = None, 0, np.zeros(len(h))
    for t in range(hold, hold + MAX_SETTLE):
        state, command = law.update(state, _entropy_signal(h, t))
        still = still + 1 if last is not None and np.array_equal(command, last) else 0
        if still >= hold:
            break
        last = command
    return np.asarray(command, dtype=np.float64)


def _entropy_signal(h: Column, position: int) -> TokenSignal:
    return token_signal(len(h), h_cal=h, h_in=h, position=position)


def pattern(cases: Cases, t: int) -> Column:
    """Return the entropy of step ``t``: between ``h_a`` and ``h_b``, by each lane's pattern."""
    a, b, period = cases["h_a"], cases["h_b"], cases["period"].astype(np.int64)
    phase = t // period
    shares: dict[str, Callable[[], Column]] = {
        "alternate": lambda: (phase % 2).astype(np.float64),
        "random": lambda: _uniform(cases["seed"], phase),
        "ramp": lambda: (t % (8 * period)) / (8.0 * period),
    }
    share = np.select([cases["pattern"] == k for k in shares], [f() for f in shares.values()])
    return a + (b - a) * share


def _uniform(seed: Column, index: Column) -> Column:
    """Return numbers in [0, 1) by seed and index (the multiplier is Knuth's golden-ratio one)."""
    mixed = (seed.astype(np.uint64) * np.uint64(7919) + index.astype(np.uint64) + np.uint64(1)) * (
        np.uint64(2654435761)
    )
    mixed ^= mixed >> np.uint64(15)
    return ((mixed * np.uint64(2246822519)) % np.uint64(1 << 20)) / float(1 << 20)


def mask(cases: Cases, t: int) -> Column:
    """Return where lanes are on at step ``t``: ``on_for`` steps on, ``off_for`` off; 0: always."""
    on_for, off_for = (cases[name].astype(np.int64) for name in ("on_for", "off_for"))
    return (on_for == 0) | (t % np.maximum(on_for + off_for, 1) < on_for)


def held(commands: np.ndarray, masks: list[Column]) -> np.ndarray:
    """Return ``commands`` ``[T, B]`` with each lane's last one held while it is off."""
    steps = np.arange(len(commands))[:, None]
    last = np.maximum.accumulate(np.where(np.stack(masks), steps, 0), axis=0)
    return np.take_along_axis(commands, last, axis=0)


def pauses(commands: np.ndarray) -> Column:
    """Return each lane's fewest steps between two changes, ``[B]``; inf with fewer than two."""
    pause = np.full(commands.shape[1], np.inf)
    last = np.full(commands.shape[1], -np.inf)
    for t, changed in enumerate(np.diff(commands, axis=0) != 0.0):
        pause = np.where(changed, np.minimum(pause, t - last), pause)
        last = np.where(changed, t, last)
    return pause


def changes(commands: np.ndarray) -> Column:
    """Return each lane's largest change, ``[B]``, less the gap between .99 and 1 it jumped."""
    size = np.abs(np.diff(commands, axis=0))
    jumped = (commands[1:] == DENSE) != (commands[:-1] == DENSE)
    return np.where(jumped, size - (DENSE - HIGHEST_SPARSE), size).max(axis=0)
