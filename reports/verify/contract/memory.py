"""Rules on a law's arrays: stable shapes and types, and no buffer shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from controllers.core import tree_map
from controllers.ops import Array
from reports.verify.contract.signals import has_torch, leaves, to_torch
from reports.verify.contract.subject import Subject
from reports.verify.contract.trial import Trial, ensure


def has_stable_types(subject: Subject, trial: Trial) -> None:
    """State keeps its structure, shapes and dtypes; lanes lead every leaf; all is float32."""
    converts: list[Callable[[Any], Any]] = [lambda tree: tree]
    if has_torch():
        converts.append(to_torch)
    for convert in converts:
        signals = subject.signals(trial.steps, trial.lanes, trial.seed)
        signals = [convert(s) for s in signals]
        state = subject.law.init(signals[0])
        for signal in signals:
            after, command = subject.law.update(state, signal)
            ensure(_is_float32(command), f"the command is {command.dtype}, not float32")
            shape = tuple(command.shape)
            ensure(shape == (trial.lanes,), f"the command has shape {shape}, not [B]")
            ensure(_structure(after) == _structure(state), "the state's structure changed")
            tree_map(partial(_same_type, trial.lanes), state, after)
            state = after


def has_no_aliases(subject: Subject, trial: Trial) -> None:
    """No buffer is shared between leaves, with the signal, or between the command and old state."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    state = law.init(signals[0])
    _distinct(leaves(state), "two leaves of a fresh state share memory")
    _apart(leaves(state), leaves(signals[0]), "a fresh state shares memory with the signal")
    for signal in signals:
        after, command = law.update(state, signal)
        old, new = leaves(state), leaves(after)
        _distinct(new, "two leaves of a state share memory")
        for i, leaf in enumerate(new):
            _apart([leaf], old[:i] + old[i + 1 :], "a leaf is another leaf's old buffer")
        _apart(new, leaves(signal), "the state shares memory with the signal")
        _apart([command], old + leaves(signal), "the command is a view of an input")
        state = after


def _structure(tree: Any) -> Any:
    return type(tree), [_structure(part) for part in tree] if isinstance(tree, tuple) else None


def _same_type(lanes: int, before: Array, after: Array) -> Array:
    was, now = tuple(before.shape), tuple(after.shape)
    ensure(now == was, f"a leaf went from {was} to {now}")
    ensure(after.dtype == before.dtype, f"a leaf went from {before.dtype} to {after.dtype}")
    ensure(len(now) > 0 and now[0] == lanes, f"lanes do not lead a leaf of shape {now}")
    ensure(_is_float32(after), f"a leaf is {after.dtype}, not float32")
    return after


def _is_float32(x: Array) -> bool:
    return str(x.dtype).endswith("float32")


def _distinct(arrays: list[Array], message: str) -> None:
    ensure(not any(np.shares_memory(a, b) for a, b in combinations(arrays, 2)), message)


def _apart(some: list[Array], others: list[Array], message: str) -> None:
    ensure(not any(np.shares_memory(a, b) for a in some for b in others), message)
