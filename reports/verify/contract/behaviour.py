"""Rules on what a law does: it runs, it is a function, lanes are apart, it resumes anywhere."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from controllers.core import put_lanes, replay, take_lanes
from reports.verify.contract.signals import extreme
from reports.verify.contract.subject import Subject
from reports.verify.contract.trial import (
    Broken,
    Trial,
    bytes_of,
    ensure,
    ensure_lanes,
    ensure_same,
)


def is_callable(subject: Subject, trial: Trial) -> None:
    """``init(signal)`` and ``update(state, signal) -> (state, command)`` run on legal signals."""
    law = subject.law
    for name, arguments in (("init", 1), ("update", 2)):
        method = getattr(law, name, None)
        ensure(callable(method), f"{type(law).__name__} has no method {name}")
        found = f"{name} must take {arguments} argument(s); got {name}{_sig(method)}"
        ensure(_takes(method, arguments), found)
    signals = subject.signals(trial.steps, trial.lanes, trial.seed)
    state = law.init(signals[0])
    for step, signal in enumerate(signals):
        result: Any = law.update(state, signal)
        pair = isinstance(result, tuple) and len(result) == 2
        ensure(pair, f"update must return (state, command); got {_shape(result)}")
        state, command = result
        is_array = isinstance(command, np.ndarray)
        if not is_array:
            raise Broken(f"the command must be an array; got {_shape(command)}", step=step)


def is_pure(subject: Subject, trial: Trial) -> None:
    """Inputs stay as they were, and the same inputs give the same outputs, however often."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    # Other signals first: a law that remembers may remember these very ones from another trial.
    replay(law, subject.signals(trial.steps, trial.lanes, trial.seed + 1))
    own = _attributes(law)
    state = law.init(signals[0])
    for step, signal in enumerate(signals):
        before = bytes_of((state, signal))
        first = law.update(state, signal)
        ensure(bytes_of((state, signal)) == before, f"update wrote to its inputs at step {step}")
        second = law.update(state, signal)
        ensure_same(second[1], first[1], "the same inputs gave two commands", step)
        ensure(bytes_of(first) == bytes_of(second), "the same inputs gave two states")
        state = first[0]
    after = _attributes(law)
    changed = [name for name, value in own.items() if after.get(name) != value]
    ensure(not changed, f"update changed the law's own {', '.join(changed)}")


def is_lane_wise(subject: Subject, trial: Trial) -> None:
    """A lane's commands do not change when other lanes move, change or vanish."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    rng = np.random.default_rng([trial.seed, 3])
    commands = replay(law, signals)
    order = rng.permutation(trial.lanes)
    moved = replay(law, [take_lanes(s, order) for s in signals])
    ensure_same(moved[:, np.argsort(order)], commands, "commands depend on the order of lanes")
    keep = np.array([int(rng.integers(trial.lanes))])
    others = subject.signals(trial.steps, trial.lanes, trial.seed + 9)
    others = [extreme(signal, seed) for seed, signal in enumerate(others)]
    mixed = [put_lanes(o, keep, take_lanes(s, keep)) for o, s in zip(others, signals, strict=True)]
    among = np.where(_only(keep, commands), replay(law, mixed), commands)
    ensure_same(among, commands, "a lane follows its neighbours")
    alone = replay(law, [take_lanes(s, keep) for s in signals])
    among = np.where(_only(keep, commands), alone, commands)
    ensure_same(among, commands, "a lane alone behaves differently")


def is_resumable(subject: Subject, trial: Trial) -> None:
    """Lanes taken out at any step, and put into another batch, go on as if never moved."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    rng = np.random.default_rng([trial.seed, 5])
    cut, some = trial.steps // 2, max(1, trial.lanes // 4)
    index, slots = rng.permutation(trial.lanes)[:some], rng.permutation(trial.lanes)[:some]
    commands = replay(law, signals)
    state = law.init(signals[0])
    for signal in signals[:cut]:
        state, _ = law.update(state, signal)
    saved = take_lanes(state, index)
    state = put_lanes(law.init(signals[0]), slots, saved)
    for step, signal in enumerate(signals[cut:], start=cut):
        moved = put_lanes(signal, slots, take_lanes(signal, index))
        state, command = law.update(state, moved)
        want = np.array(command)
        want[slots] = commands[step, index]
        ensure_same(command, want, f"differs {step - cut} steps after resuming", step)


def ignores_the_oracle(subject: Subject, trial: Trial) -> None:
    """The true output length, which no server knows, never changes a command."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    rng = np.random.default_rng([trial.seed, 7])
    unknown = [s._replace(oracle_tokens=np.full_like(s.age_s, np.nan)) for s in signals]
    blind = replay(law, unknown)
    ensure_lanes(np.isfinite(blind), "without the true output length the command is not finite")
    for most in (2, 10_000):
        lengths = rng.integers(1, most, trial.lanes).astype(np.float32)
        told = [s._replace(oracle_tokens=lengths) for s in signals]
        ensure_same(replay(law, told), blind, "the command follows oracle_tokens")


def _takes(method: Any, arguments: int) -> bool:
    try:
        inspect.signature(method).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: the call itself will tell
        return True
    return True


def _sig(method: Any) -> str:
    try:
        return str(inspect.signature(method))
    except ValueError:
        return "(...)"


def _shape(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def _attributes(law: Any) -> dict[str, str]:
    """Return the law's own values as text. New names are not compared: a cache may appear."""
    names = [*getattr(law, "__dict__", {}), *getattr(type(law), "__slots__", ())]
    return {name: repr(getattr(law, name, None)) for name in names}


def _only(lane: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.arange(like.shape[-1]) == lane
