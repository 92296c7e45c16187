"""Rules on the rows a sampler returns: masks, the best token, the cap, lanes left alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.core import take_lanes
from controllers.ops import Array
from controllers.samplers import Pipeline
from reports.verify.contract.signals import extreme
from reports.verify.contract.trial import ensure_lanes
from reports.verify.samplers.compare import ensure_equal
from reports.verify.samplers.scene import Run, SamplerTrial, Scene, probe, run, scene_of, spoiled

CLOSE = 1e-4  # of a logit, relative above one: float32 and a division by T
CAP_SLACK = 1e-6  # ln T: rounding of float32


def keeps_the_mask(sampler: Any, trial: SamplerTrial) -> None:
    """A masked token stays at -inf, one logit is left finite; no NaN, no +inf, a finite ln T."""
    scene = scene_of(trial)
    _sound(scene, run(sampler, scene))


def survives_nonfinite(sampler: Any, trial: SamplerTrial) -> None:
    """NaN or infinity in one field of the signal never reaches a logit or ln T, now or later."""
    scene = spoiled(scene_of(trial), trial)
    _sound(scene, run(sampler, scene), f" after {trial.field} = {trial.value}")


def survives_wild_signals(sampler: Any, trial: SamplerTrial) -> None:
    """Finite signals of any size, up to 1e30 and of either sign, leave the rows sound."""
    scene = scene_of(trial)
    wild = [extreme(s, trial.seed + i) if i % 2 else s for i, s in enumerate(scene.signals)]
    scene = scene._replace(signals=wild)
    _sound(scene, run(sampler, scene), " after a wild signal")


def survives_forced_tokens(sampler: Any, trial: SamplerTrial) -> None:
    """A token that the caller forces, cut or masked, leaves the next rows sound."""
    scene = scene_of(trial)
    least = [logits.argmin(-1).astype(np.int64) for logits in scene.logits]
    _sound(scene, run(sampler, scene, least), " after a forced token")


def keeps_the_best(sampler: Any, trial: SamplerTrial) -> None:
    """The likeliest token is kept; what is kept is the row at the ln T reported, up to a shift."""
    scene = scene_of(trial)
    for step, shaped in enumerate(run(sampler, scene).shaped):
        z, out = scene.logits[step].astype(np.float64), np.asarray(shaped.logits, dtype=np.float64)
        best = (z == _top(z)) & np.isfinite(out)
        ensure_lanes(best.any(-1), "the likeliest token was cut", step)
        kept = np.isfinite(out) & np.isfinite(z)
        want = (z - _top(z)) * np.exp(-np.asarray(shaped.x, dtype=np.float64))[:, None]
        want, got = np.where(kept, want, 0.0), np.where(kept, out - _top(out), 0.0)
        same = abs(got - want) <= CLOSE * np.maximum(1.0, abs(want))
        ensure_lanes(same.all(-1), "a kept logit is not the row's at the ln T reported", step)


def keeps_the_cap(sampler: Any, trial: SamplerTrial) -> None:
    """Where a request has a cap, the ln T applied is never above it."""
    scene = scene_of(trial)
    for step, shaped in enumerate(run(sampler, scene).shaped):
        cap = scene.signals[step].x_cap
        over = np.asarray(shaped.x) - cap
        ensure_lanes(over <= CAP_SLACK, f"ln T is {np.nanmax(over):.4g} above the cap", step)


def leaves_lanes_alone(sampler: Any, trial: SamplerTrial) -> None:
    """Switched-off lanes are sampled at the user's ln T, whole row, and their state holds."""
    scene = scene_of(trial)
    done = run(sampler, scene)
    for step, shaped in enumerate(done.shaped):
        signal, z = scene.signals[step], scene.logits[step].astype(np.float64)
        off = signal.enabled <= 0.0
        ensure_lanes(~off | (shaped.x == signal.x_user), "ln T is not the user's", step)
        want = (z - _top(z)) * np.exp(-signal.x_user.astype(np.float64))[:, None]
        out = np.asarray(shaped.logits, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            gap = abs(out - _top(out) - want) <= CLOSE * np.maximum(1.0, abs(want))
        same = (gap | (np.isneginf(out) & np.isneginf(want))).all(-1)
        ensure_lanes(~off | same, "the row of a switched-off lane was changed", step)
        lanes = np.flatnonzero(off)
        before, after = (take_lanes(s, lanes) for s in done.states[step : step + 2])
        ensure_equal(after, before, "the state of a switched-off lane moved", step)


def unfit_for_best(sampler: Any) -> str:
    """Say that a sampler reshapes rows, where what it keeps is no straight line of the logits."""
    scene = probe()
    for z, shaped in zip(scene.logits, run(sampler, scene).shaped, strict=True):
        out = np.asarray(shaped.logits, dtype=np.float64)
        for row, got in zip(z.astype(np.float64), out, strict=True):
            if not _straight(row, got):
                return "reshapes the row: neither a temperature nor a truncation"
    return ""


def unfit_for_cap(sampler: Any) -> str:
    """Say that a sampler heats nothing, where ln T is 0 in every lane of a longer run."""
    trial = SamplerTrial(lanes=16, steps=48, n=24)
    heats = any(np.any(np.asarray(s.x) != 0.0) for s in run(sampler, scene_of(trial)).shaped)
    return "" if heats else "sets no temperature: ln T is 0 throughout"


def unfit_for_bypass(sampler: Any) -> str:
    """Say that only a pipeline promises to leave lanes alone."""
    return "" if isinstance(sampler, Pipeline) else "a bare sampler acts on every lane"


def _sound(scene: Scene, done: Run, when: str = "") -> None:
    for step, shaped in enumerate(done.shaped):
        out, x = np.asarray(shaped.logits), np.asarray(shaped.x)
        ensure_lanes(~np.isnan(out).any(-1), f"a logit is NaN{when}", step)
        ensure_lanes(~np.isposinf(out).any(-1), f"a logit is +inf{when}", step)
        ensure_lanes(np.isfinite(out).any(-1), f"no token is left{when}", step)
        masked = np.isneginf(scene.logits[step])
        ensure_lanes(~(masked & ~np.isneginf(out)).any(-1), f"a masked token is back{when}", step)
        ensure_lanes(np.isfinite(x), f"ln T is not finite{when}", step)


def _straight(row: Array, got: Array) -> bool:
    kept = np.isfinite(got) & np.isfinite(row)
    if kept.sum() < 3:
        return True
    z, y = row[kept], got[kept]
    low, high = int(z.argmin()), int(z.argmax())
    slope = (y[high] - y[low]) / (z[high] - z[low])
    line = y[low] + slope * (z - z[low])
    return bool(slope > 0.0 and np.all(abs(y - line) <= 1e-3 * (y[high] - y[low])))


def _top(z: Array) -> Array:
    return z.max(-1, keepdims=True)
