"""Variance of H at matched mean on the live model, where the text answers to the temperature.

Fixed temperatures are run on a grid; between them mean H and ln Var(H) are interpolated in ln T,
seed by seed. Each law is compared, in the same seed, with the fixed T of its own mean H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from backend.models import LoadedModel
from controllers.compose import Gated
from controllers.core import TemperatureLaw
from controllers.coverage import FixedCoverage
from controllers.presets import Preset, get_preset
from controllers.priority import Fcfs
from controllers.temperature import EntropyFeedback, FeedforwardNewton
from reports.statistics import interval
from reports.studies.stability import Setting, StudyFailed, offset, serve
from reports.studies.variance import lag_one

GRID = (0.5, 0.7, 0.9, 1.1)  # fixed temperatures; laws must land between their mean entropies
LAWS: tuple[tuple[str, TemperatureLaw], ...] = (
    ("feedback", EntropyFeedback()),
    ("newton", FeedforwardNewton()),
)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Runs:
    """One law or fixed T over all seeds: means over its requests, ``[seeds]``."""

    mean_nats: np.ndarray
    variance: np.ndarray  # of H within requests, nats^2
    correlation: np.ndarray  # lag 1, within requests
    nll_nats: np.ndarray  # of the tokens sampled, at T = 1
    clip_share: np.ndarray

    @classmethod
    def of(cls, columns: dict[str, np.ndarray]) -> Runs:
        """Reduce the ``[seeds, prompts, tokens]`` columns of one live run."""
        h, x = columns["h_applied"].astype(np.float64), columns["x_applied"]
        law = EntropyFeedback()
        on_clip = (np.abs(x - law.x_min) < 1e-4) | (np.abs(x - law.x_max) < 1e-4)
        return cls(
            mean_nats=h.mean(axis=(1, 2)),
            variance=h.var(axis=2).mean(axis=1),
            correlation=np.array([lag_one(seed, np.ones(seed.shape, bool)) for seed in h]),
            nll_nats=columns["surprisal"].astype(np.float64).mean(axis=(1, 2)),
            clip_share=on_clip.mean(axis=(1, 2)),
        )


def live(
    loaded: LoadedModel, setting: Setting, progress: Progress | None = None
) -> list[dict[str, object]]:
    """Run the grid and the laws; return a row for each, laws with their ratio to a matched T.

    Raises ``StudyFailed`` where a law's mean entropy lies outside the grid's.
    """
    baseline = get_preset("baseline")
    jobs = [(f"fixed T = {t:g}", baseline, replace(setting, temperature=t)) for t in GRID]
    jobs += [(name, _only(name, law), setting) for name, law in LAWS]
    steps = setting.max_tokens + 2
    found: dict[str, Runs] = {}
    for order, (name, preset, how) in enumerate(jobs):
        tick = None if progress is None else offset(progress, order * steps, len(jobs) * steps)
        found[name] = Runs.of(serve(loaded, preset, how, tick))
    grid = [found[f"fixed T = {t:g}"] for t in GRID]
    return [_row(name, runs, grid, setting) for name, runs in found.items()]


def _only(name: str, law: TemperatureLaw) -> Preset:
    return Preset(name=name, temperature=Gated(law=law), coverage=FixedCoverage(), priority=Fcfs())


def _row(name: str, runs: Runs, grid: list[Runs], setting: Setting) -> dict[str, object]:
    row: dict[str, object] = {
        "law": name,
        "mean_entropy_nats": _pair(runs.mean_nats),
        "variance_nats2": _pair(runs.variance),
        "lag1_correlation": _pair(runs.correlation),
        "nll_nats": _pair(runs.nll_nats),
        "clip_share": _pair(runs.clip_share),
    }
    if not name.startswith("fixed"):
        pairs = [_matched(runs, grid, seed) for seed in range(len(setting.seeds))]
        row["fixed_temperature"] = _pair(np.array([t for t, _ in pairs]))
        row["ratio"] = _pair(np.array([ratio for _, ratio in pairs]))
        row["target_nats"] = setting.target_nats
    return row


def _matched(runs: Runs, grid: list[Runs], seed: int) -> tuple[float, float]:
    """Return the fixed T of equal mean H in this seed, and the ratio of variances."""
    means = np.array([fixed.mean_nats[seed] for fixed in grid])
    wanted = runs.mean_nats[seed]
    if np.any(np.diff(means) <= 0) or not means[0] <= wanted <= means[-1]:
        raise StudyFailed(
            f"mean entropy {wanted:.3g} nat lies outside the grid's {means.round(3).tolist()}"
        )
    x = float(np.interp(wanted, means, np.log(GRID)))
    logs = np.log([fixed.variance[seed] for fixed in grid])
    return float(np.exp(x)), float(runs.variance[seed] / np.exp(np.interp(x, np.log(GRID), logs)))


def _pair(values: np.ndarray) -> dict[str, float | None]:
    found = interval(values.tolist())
    assert found is not None, "every seed has a value"
    return {"mean": found.mean, "ci95": found.half}
