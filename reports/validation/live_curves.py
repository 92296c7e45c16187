"""Closed loop predicted from open-loop recordings: what the laws did, against what they would do.

The recording is of a fixed temperature and dense attention. The law objects run over its curves;
live, the law also changes which tokens are drawn, so the text, and with it the curves, is another.
How far two live runs with other sampling noise are apart is the floor of any such prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from reports.validation.live_observed import Observed

QUANTILES = (10, 50, 90)


def trajectory_rows(runs: Sequence[Observed], simulated: Observed) -> list[dict[str, Any]]:
    """Return a row per quantity: its distribution over tokens, measured and predicted.

    ``distance`` is Wasserstein's first, in the quantity's own unit, between predicted tokens and
    those of all repeats; ``floor`` the mean distance of two repeats, None for one run.
    ``by_request`` is the mean absolute error of the requests' means, its floor that of repeats.
    """
    ours = simulated.trajectories()
    live = [run.trajectories() for run in runs]
    found = []
    for name, predicted in ours.items():
        each = [one[name] for one in live]
        pooled = np.concatenate(each)
        means = [_by_request(run, values) for run, values in zip(runs, each, strict=True)]
        guess = _by_request(simulated, predicted)
        pairs = list(combinations(range(len(runs)), 2))
        found.append(
            {
                "quantity": name,
                "measured": _shape(pooled),
                "predicted": _shape(predicted),
                "distance": wasserstein(predicted, pooled),
                "floor": _mean([wasserstein(each[a], each[b]) for a, b in pairs]),
                "by_request": _mean([float(np.abs(guess - mean).mean()) for mean in means]),
                "by_request_floor": _mean(
                    [float(np.abs(means[a] - means[b]).mean()) for a, b in pairs]
                ),
            }
        )
    return found


def causes(rows: Sequence[Mapping[str, Any]], *, parity: bool) -> str:
    """Say in a line where the error of the predicted entropies can come from."""
    row = next(row for row in rows if row["quantity"] == "h_applied_nats")
    floor = row["floor"]
    replayed = (
        "commands replayed from the live signals are equal bit for bit, so the laws are the same"
        if parity
        else "replayed commands DIFFER from the live ones"
    )
    if floor is None:
        return f"{replayed}; one run gives no floor"
    by = row["by_request"] - row["by_request_floor"]
    share = (
        "about as near as two live runs with other sampling noise are to each other"
        if by <= 0.0
        else f"{by:.2f} nat further per request than two live runs are from each other"
    )
    return (
        f"{replayed}; entropies are predicted {share}: the sampled path is another one, and what "
        "pruning or temperature did to it is not in the recording"
    )


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the first Wasserstein distance of two samples: the mean gap of their quantiles."""
    every = np.sort(np.concatenate([a, b]))
    widths = np.diff(every)
    below = [np.searchsorted(np.sort(x), every[:-1], side="right") / len(x) for x in (a, b)]
    return float((np.abs(below[0] - below[1]) * widths).sum())


def drawn_distribution(values: np.ndarray, points: int = 41) -> list[float]:
    """Return quantiles of ``values`` at equal steps, for a figure."""
    return [float(f"{q:.5g}") for q in np.quantile(values, np.linspace(0.0, 1.0, points))]


def _shape(values: np.ndarray) -> dict[str, float]:
    found = {f"p{q}": float(np.percentile(values, q)) for q in QUANTILES}
    return {"mean": float(values.mean()), **found}


def _by_request(seen: Observed, values: np.ndarray) -> np.ndarray:
    ids, place = np.unique(seen.tokens["request_id"], return_inverse=True)
    return np.bincount(place, weights=values) / np.bincount(place, minlength=len(ids))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
