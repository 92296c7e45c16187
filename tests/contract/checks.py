"""The contract, one function per rule; each raises when the subject breaks its rule."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from controllers.core import put_lanes, replay, take_lanes, tree_map
from controllers.ops import Array
from tests.contract.signals import extreme, leaves, to_torch
from tests.contract.subjects import Subject

LANES = 16


def is_pure(subject: Subject) -> None:
    """Inputs stay as they were, and the same inputs give the same outputs, however often."""
    law, signals = subject.law, subject.signals(12, LANES)
    state = law.init(signals[0])
    for signal in signals:
        before = _bytes((state, signal))
        first = law.update(state, signal)
        assert _bytes((state, signal)) == before, "update wrote to its inputs"
        second = law.update(state, signal)
        assert _bytes(first) == _bytes(second), "the same inputs gave two outputs"
        state = first[0]


def is_lane_wise(subject: Subject) -> None:
    """A lane's commands do not change when other lanes move, change or vanish."""
    law, signals = subject.law, subject.signals(40, LANES)
    commands = replay(law, signals)
    order = np.random.default_rng(3).permutation(LANES)
    moved = replay(law, [take_lanes(s, order) for s in signals])
    _same(moved, commands[:, order], "commands depend on the order of lanes")
    keep = np.array([5])
    others = [extreme(signal, seed) for seed, signal in enumerate(subject.signals(40, LANES, 9))]
    with np.errstate(all="ignore"):
        mixed = [
            put_lanes(o, keep, take_lanes(s, keep)) for o, s in zip(others, signals, strict=True)
        ]
        _same(replay(law, mixed)[:, keep], commands[:, keep], "a lane follows its neighbours")
    alone = replay(law, [take_lanes(s, keep) for s in signals])
    _same(alone, commands[:, keep], "a lane alone behaves differently")


def has_stable_types(subject: Subject) -> None:
    """State keeps its structure, shapes and dtypes; lanes lead every leaf; all is float32."""
    for convert in (lambda tree: tree, to_torch):
        signals = [convert(s) for s in subject.signals(4, LANES)]
        state = subject.law.init(signals[0])
        for signal in signals:
            after, command = subject.law.update(state, signal)
            assert str(command.dtype).endswith("float32"), f"command is {command.dtype}"
            assert tuple(command.shape) == (LANES,), f"command has shape {tuple(command.shape)}"
            tree_map(_same_type, state, after)
            state = after


def is_branch_free(subject: Subject) -> None:
    """The law runs on torch's meta device, where no value can be read."""
    signals = [to_torch(s, "meta") for s in subject.signals(3, LANES)]
    state = subject.law.init(signals[0])
    for signal in signals:
        state, command = subject.law.update(state, signal)
        assert command.device.type == "meta", "the command left the device"
        assert all(leaf.device.type == "meta" for leaf in leaves(state))


def is_bounded(subject: Subject) -> None:
    """Every finite signal, however wild, gives a command in the promised range."""
    law, signals = subject.law, subject.signals(60, LANES)
    wild = [extreme(s, i) if i % 2 else s for i, s in enumerate(signals)]
    state = law.init(wild[0])
    with np.errstate(all="ignore"):
        for signal in wild:
            state, command = law.update(state, signal)
            low, high = subject.bounds(signal)
            assert np.isfinite(command).all(), "a finite signal gave a non-finite command"
            assert (command >= low).all(), f"below its range by {(low - command).max()}"
            assert (command <= high).all(), f"above its range by {(command - high).max()}"


def survives_nonfinite(subject: Subject) -> None:
    """NaN or infinity in any one field never reaches a command, now or later."""
    law = subject.law
    for name in subject.signals(1, 1)[0]._fields:
        for bad in (np.nan, np.inf, -np.inf):
            signals = subject.signals(6, LANES)
            poisoned = np.full(LANES, bad, dtype=np.float32)
            signals[0] = signals[0]._replace(**{name: poisoned})
            signals[3] = signals[3]._replace(**{name: poisoned})
            with np.errstate(all="ignore"):
                commands = replay(law, signals)
            assert np.isfinite(commands).all(), f"{name} = {bad} reached a command"


def is_resumable(subject: Subject) -> None:
    """Lanes taken out at any step, and put into another batch, go on as if never moved."""
    law, signals = subject.law, subject.signals(40, LANES)
    commands = replay(law, signals)
    state = law.init(signals[0])
    for signal in signals[:20]:
        state, _ = law.update(state, signal)
    index = np.array([7, 2, 11])
    saved = take_lanes(state, index)
    slots = np.array([0, 4, 9])
    state = put_lanes(law.init(signals[0]), slots, saved)
    for step, signal in enumerate(signals[20:], start=20):
        moved = put_lanes(signal, slots, take_lanes(signal, index))
        state, command = law.update(state, moved)
        _same(command[slots], commands[step, index], f"differs {step - 20} steps after resuming")


def has_no_aliases(subject: Subject) -> None:
    """No buffer is shared between leaves, with the signal, or between the command and old state."""
    law, signals = subject.law, subject.signals(5, LANES)
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


def agrees_bitwise(subject: Subject) -> None:
    """numpy and torch give the same float32 bits over 200 steps of 64 lanes."""
    signals = subject.signals(200, 64)
    ours = replay(subject.law, signals)
    theirs = replay(subject.law, [to_torch(s) for s in signals])
    assert ours.shape == (200, 64)
    _same(theirs.numpy(), ours, "numpy and torch differ")


CHECKS = (
    is_pure,
    is_lane_wise,
    has_stable_types,
    is_branch_free,
    is_bounded,
    survives_nonfinite,
    is_resumable,
    has_no_aliases,
    agrees_bitwise,
)


def _bytes(tree: Array) -> list[bytes]:
    return [leaf.tobytes() for leaf in leaves(tree)]


def _same(got: Array, want: Array, message: str) -> None:
    differs = np.ascontiguousarray(got).view(np.int32) != np.ascontiguousarray(want).view(np.int32)
    assert not differs.any(), f"{message}: {differs.sum()} of {differs.size} values"


def _same_type(before: Array, after: Array) -> Array:
    assert after.shape == before.shape, f"a leaf went from {before.shape} to {after.shape}"
    assert after.dtype == before.dtype, f"a leaf went from {before.dtype} to {after.dtype}"
    assert after.shape[0] == LANES, f"lanes do not lead a leaf of shape {after.shape}"
    assert str(after.dtype).endswith("float32"), f"a leaf is {after.dtype}"
    return after


def _distinct(arrays: list[Array], message: str) -> None:
    assert not any(_shared(a, b) for a, b in combinations(arrays, 2)), message


def _apart(some: list[Array], others: list[Array], message: str) -> None:
    assert not any(_shared(a, b) for a in some for b in others), message


def _shared(a: Array, b: Array) -> bool:
    if isinstance(a, torch.Tensor):
        return a.data_ptr() == b.data_ptr()
    return bool(np.shares_memory(a, b))
