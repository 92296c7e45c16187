"""Does the temperature settle or saturate? Presets on the live model, fixed length, many seeds.

The sign error in one experiment: under ``seed`` the temperature should end on a clip, under
``full`` stay off it with the mean entropy near the set-point wherever that can be reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backend.engine import Engine, Submission
from backend.models import LoadedModel
from backend.recorder import TraceRecorder
from backend.setup import default_limits, default_step_law, make_request
from controllers.presets import Preset, get_preset
from controllers.temperature import X_MAX, X_MIN
from traces.prompts import BUILTIN
from traces.schema import T_NODES

PRESETS = ("baseline", "seed", "full", "best")
ON_CLIP = 1e-4  # of ln T
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WARM_UP_TOKENS = 32  # left out of "settled" means: the law starts at the user's T


class StudyFailed(RuntimeError):
    """Requests that did not run to their full length, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is run: every built-in prompt under every seed, ``max_tokens`` each."""

    seeds: tuple[int, ...]
    max_tokens: int = 256
    temperature: float = 0.8
    target_nats: float = 1.0


def run(
    loaded: LoadedModel,
    setting: Setting,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, object]]:
    """Return a row per preset: a summary per seed, and quantile bands of T and H by token."""
    rows, reachable = [], None
    steps = len(PRESETS) * (setting.max_tokens + 2)
    for order, name in enumerate(PRESETS):
        done = order * (setting.max_tokens + 2)
        tick = None if progress is None else offset(progress, done, steps)
        columns = serve(loaded, get_preset(name), setting, tick)
        if reachable is None:  # judged once, on the path of the first preset, the baseline
            reachable = _reachable(columns, setting.target_nats)
        rows.append(_summary(name, setting, columns, reachable))
    return rows


def offset(progress: Callable[[int, int], None], start: int, total: int) -> Callable[[int], None]:
    """Return a step counter that reports to ``progress`` from ``start`` on."""
    return lambda step: progress(min(start + step, total), total)


def serve(
    loaded: LoadedModel, preset: Preset, setting: Setting, tick: Callable[[int], None] | None
) -> dict[str, np.ndarray]:
    """Run one preset live; return ``[seeds, prompts, tokens]`` columns."""
    cases = [(seed, prompt) for seed in setting.seeds for prompt in BUILTIN]
    limits = default_limits(
        loaded,
        max_seqs=len(cases),
        token_budget=max(512, len(cases)),
        pool_tokens=len(cases) * (256 + setting.max_tokens),
    )
    recorder = TraceRecorder(page_curves=False)
    engine = Engine(loaded, preset, limits, default_step_law(), recorder=recorder, ignore_stop=True)
    if tick is not None:
        engine.on_step = lambda plan, _result: tick(plan.step)
    submissions = []
    for index, (seed, prompt) in enumerate(cases):
        request, ids = make_request(
            loaded,
            index,
            prompt.text,
            max_tokens=setting.max_tokens,
            temperature=setting.temperature,
            target_nats=setting.target_nats,
            seed=seed * 1000 + index,
            task_class=prompt.task_class,
        )
        submissions.append(Submission(request=request, prompt=ids))
    done = engine.run(submissions)
    failed = [f"request {d.request.request_id}: {d.reason}" for d in done if d.reason != "length"]
    if failed:
        raise StudyFailed(f"{preset.name}: {'; '.join(failed)}")
    shape = (len(setting.seeds), len(BUILTIN))
    taken = [recorder.take(index, index) for index in range(len(cases))]
    stacked = {name: np.stack([columns[name] for columns in taken]) for name in taken[0]}
    return {key: column.reshape(shape + column.shape[1:]) for key, column in stacked.items()}


def _summary(
    name: str, setting: Setting, columns: dict[str, np.ndarray], reachable: np.ndarray
) -> dict[str, object]:
    x, h = columns["x_applied"], columns["h_applied"]
    on_clip = (np.abs(x - X_MIN) < ON_CLIP) | (np.abs(x - X_MAX) < ON_CLIP)
    own = _reachable(columns, setting.target_nats)
    settled = h[:, :, WARM_UP_TOKENS:]
    per_seed = [
        {
            "seed": seed,
            "clip_share": float(on_clip[i].mean()),
            "mean_entropy_nats": float(h[i].mean()),
            "sd_entropy_nats": float(h[i].std(axis=1).mean()),
            "mean_temperature": float(np.exp(x[i]).mean()),
            "nll_nats": float(columns["surprisal"][i].mean()),
            "reachable_share": float(reachable[i].mean()),
            "own_path_reachable_share": float(own[i].mean()),
            "reachable_mean_entropy_nats": _mean(h[i][reachable[i]]),
            "reachable_settled_entropy_nats": _mean(settled[i][reachable[i]]),
        }
        for i, seed in enumerate(setting.seeds)
    ]
    return {
        "preset": name,
        "target_nats": setting.target_nats,
        "requests": int(x.shape[0] * x.shape[1]),
        "tokens": int(x.size),
        "seeds": per_seed,
        "temperature_quantiles": _bands(np.exp(x)),
        "entropy_quantiles": _bands(h),
        "quantiles": list(QUANTILES),
    }


def _reachable(columns: dict[str, np.ndarray], target: float) -> np.ndarray:
    """Return ``[seeds, prompts]``: whether the mean entropy can be the target inside the clips.

    On the path that ``columns`` took, the mean H over its tokens at T_min and at T_max must lie on
    either side of the target. The end nodes of a trace are the clips.
    """
    assert np.allclose(np.log([T_NODES[0], T_NODES[-1]]), [X_MIN, X_MAX])
    mean = columns["h"].mean(axis=2)  # [seeds, prompts, N]
    return (mean[..., 0] <= target) & (target <= mean[..., -1])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _bands(values: np.ndarray) -> list[list[float]]:
    """Return quantiles over all requests, one list per quantile, by token."""
    flat = values.reshape(-1, values.shape[-1])
    return np.round(np.quantile(flat, QUANTILES, axis=0), 4).tolist()
