"""Rules on what a sampler does: a function of its inputs, lane by lane, moved by acceptance."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np

from controllers.core import put_lanes, take_lanes
from controllers.ops import Array
from reports.verify.contract.signals import leaves
from reports.verify.contract.trial import bytes_of, ensure
from reports.verify.samplers.compare import ensure_close, ensure_equal, outputs
from reports.verify.samplers.scene import SamplerTrial, Scene, drawn, others, run, scene_of

METHODS = {"init": 1, "shape": 3, "accept": 3}
AHEAD = 3  # tokens of a speculative run that is thrown away


def is_callable(sampler: Any, trial: SamplerTrial) -> None:
    """``init(signal)``, ``shape(state, logits, signal)``, ``accept(state, shaped, token)`` run."""
    for name, arguments in METHODS.items():
        method = getattr(sampler, name, None)
        ensure(callable(method), f"{type(sampler).__name__} has no method {name}")
        ensure(_takes(method, arguments), f"{name} must take {arguments} argument(s)")
    scene = scene_of(trial)
    state = sampler.init(scene.signals[0])
    for step, (logits, signal) in enumerate(zip(scene.logits, scene.signals, strict=True)):
        shaped = sampler.shape(state, logits, signal)
        for name in ("logits", "x"):
            array = isinstance(getattr(shaped, name, None), np.ndarray)
            ensure(array, f"shape must return Shaped; {type(shaped).__name__}.{name} is no array")
        state = sampler.accept(state, shaped, drawn(shaped, scene, step))


def has_stable_types(sampler: Any, trial: SamplerTrial) -> None:
    """Logits keep shape and float32; x is float32 [B]; the state's arrays lead with lanes."""
    done, scene = run(sampler, scene_of(trial)), scene_of(trial)
    for shaped in done.shaped:
        _typed(shaped.logits, scene.logits[0].shape, "the logits")
        _typed(shaped.x, (trial.lanes,), "x")
    first = leaves(done.states[0])
    for state in done.states:
        now = leaves(state)
        ensure(len(now) == len(first), "the state's structure changed")
        for was, leaf in zip(first, now, strict=True):
            ensure(isinstance(leaf, np.ndarray), f"the state holds a {type(leaf).__name__}")
            lead = leaf.ndim > 0 and leaf.shape[0] == trial.lanes
            ensure(lead, f"lanes do not lead a leaf of shape {leaf.shape}")
            _typed(leaf, was.shape, "a leaf of the state")


def is_pure(sampler: Any, trial: SamplerTrial) -> None:
    """Inputs stay as they were, and the same inputs give the same outputs, however often."""
    own = _attributes(sampler)
    run(sampler, others(trial))  # so that a memory holds other rows than those to come
    scene = scene_of(trial)
    state = sampler.init(scene.signals[0])
    for step, (logits, signal) in enumerate(zip(scene.logits, scene.signals, strict=True)):
        before = bytes_of((state, logits, tuple(signal)))
        first = sampler.shape(state, logits, signal)
        kept = copy.deepcopy(outputs(first))
        wrote = bytes_of((state, logits, tuple(signal))) != before
        ensure(not wrote, f"shape wrote to its inputs at step {step}")
        for _ in range(2):
            again = outputs(sampler.shape(state, logits, signal))
            ensure_equal(again, kept, "the same inputs were shaped in two ways", step)
        token = drawn(first, scene, step)
        before = bytes_of((state, outputs(first), token))
        after = sampler.accept(state, first, token)
        wrote = bytes_of((state, outputs(first), token)) != before
        ensure(not wrote, f"accept wrote to its inputs at step {step}")
        ensure_equal(sampler.accept(state, first, token), after, "two states for one token", step)
        state = after
    now = _attributes(sampler)
    changed = [name for name, value in own.items() if now.get(name) != value]
    ensure(not changed, f"the sampler's own {', '.join(changed)} changed")


def is_lane_wise(sampler: Any, trial: SamplerTrial) -> None:
    """A lane's rows and state do not change when other lanes move, change or vanish."""
    scene = scene_of(trial)
    rng = np.random.default_rng([trial.seed, 3])
    done = run(sampler, scene)
    order = rng.permutation(trial.lanes)
    _same_lanes(sampler, scene.only(order), done, order, "the result depends on the order of lanes")
    for lane in rng.permutation(trial.lanes)[:3]:
        one = np.array([lane])
        _same_lanes(sampler, scene.only(one), done, one, "a lane alone is sampled differently")
        mixed = _among(scene, others(trial), one)
        tokens = [np.where(np.arange(trial.lanes) == lane, token, 0) for token in done.tokens]
        got = run(sampler, mixed, tokens)
        for step, (a, b) in enumerate(zip(got.shaped, done.shaped, strict=True)):
            follows = "a lane follows its neighbours"
            ensure_close(_take(outputs(a), one), _take(outputs(b), one), follows, step)
        ensure_close(_take(got.states[-1], one), _take(done.states[-1], one), "a state follows")


def moves_on_acceptance(sampler: Any, trial: SamplerTrial) -> None:
    """Token -1 holds a lane's state; a speculative run thrown away leaves no trace."""
    scene = scene_of(trial)
    plain = run(sampler, scene)
    state = sampler.init(scene.signals[0])
    for step, (logits, signal) in enumerate(zip(scene.logits, scene.signals, strict=True)):
        state = _speculated(sampler, scene, state, step)
        shaped = sampler.shape(state, logits, signal)
        trace = "a run that was thrown away left a trace"
        ensure_equal(outputs(shaped), outputs(plain.shaped[step]), trace, step)
        held = sampler.accept(state, shaped, np.full(trial.lanes, -1))
        ensure_equal(held, state, "a lane that kept no token moved", step)
        after = sampler.accept(state, shaped, plain.tokens[step])
        still = np.flatnonzero(plain.tokens[step] < 0)
        mixed = "a lane that kept no token moved beside lanes that did"
        ensure_equal(_take(after, still), _take(state, still), mixed, step)
        ensure_equal(after, plain.states[step + 1], trace, step)
        state = after


def is_resumable(sampler: Any, trial: SamplerTrial) -> None:
    """Lanes taken out at any step, and put into a fresh batch, go on as if never moved."""
    scene = scene_of(trial)
    done, rng = run(sampler, scene), np.random.default_rng([trial.seed, 5])
    cut = trial.steps // 2
    index = rng.permutation(trial.lanes)[: max(1, trial.lanes // 2)]
    slots = rng.permutation(trial.lanes)[: len(index)]
    fresh = others(trial)
    state = put_lanes(sampler.init(fresh.signals[0]), slots, take_lanes(done.states[cut], index))
    for step in range(cut, trial.steps):
        logits = fresh.logits[step].copy()
        logits[slots] = scene.logits[step][index]
        moved = take_lanes(scene.signals[step], index)
        signal = put_lanes(fresh.signals[step], slots, moved)
        token = np.zeros(trial.lanes, dtype=np.int64)
        token[slots] = done.tokens[step][index]
        shaped = sampler.shape(state, logits, signal)
        want = _take(outputs(done.shaped[step]), index)
        after = f"differs {step - cut} steps after resuming"
        ensure_close(_take(outputs(shaped), slots), want, after, step)
        state = sampler.accept(state, shaped, token)


def _speculated(sampler: Any, scene: Scene, state: Any, step: int) -> Any:
    """Run ahead on a few steps, keep every token, and return the snapshot taken before."""
    saved = copy.deepcopy(state)
    for ahead in range(step, min(step + AHEAD, len(scene.logits))):
        shaped = sampler.shape(state, scene.logits[ahead], scene.signals[ahead])
        state = sampler.accept(state, shaped, np.asarray(shaped.logits).argmax(-1))
    return saved


def _same_lanes(sampler: Any, scene: Scene, done: Any, index: Array, message: str) -> None:
    got = run(sampler, scene, [token[index] for token in done.tokens])
    for step, (a, b) in enumerate(zip(got.shaped, done.shaped, strict=True)):
        ensure_close(outputs(a), _take(outputs(b), index), message, step)
    ensure_close(got.states[-1], _take(done.states[-1], index), f"{message}: its state")


def _among(scene: Scene, neighbours: Scene, one: Array) -> Scene:
    logits = [n.copy() for n in neighbours.logits]
    for row, own in zip(logits, scene.logits, strict=True):
        row[one] = own[one]
    pairs = zip(neighbours.signals, scene.signals, strict=True)
    signals = [put_lanes(n, one, take_lanes(own, one)) for n, own in pairs]
    return scene._replace(logits=logits, signals=signals)


def _take(tree: Any, index: Array) -> Any:
    return take_lanes(tree, index)


def _typed(array: Array, shape: tuple[int, ...], what: str) -> None:
    ensure(tuple(array.shape) == tuple(shape), f"{what}: from {shape} to {array.shape}")
    ensure(array.dtype == np.float32, f"{what}: {array.dtype}, not float32")


def _takes(method: Any, arguments: int) -> bool:
    try:
        inspect.signature(method).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: the call itself will tell
        return True
    return True


def _attributes(sampler: Any) -> dict[str, str]:
    names = [*getattr(sampler, "__dict__", {}), *getattr(type(sampler), "__slots__", ())]
    return {name: repr(getattr(sampler, name, None)) for name in names}
