"""Fit a step law to timed steps, and say how far it is off on steps it did not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backend.profile_points import Point, points_table
from controllers.core import require
from controllers.steplaw import StepLaw

FOLDS = 5
HUBER = 2.2  # median errors; about 1.5 standard deviations
ROUNDS = 3
SHORT_CHUNKS = 4  # the shortest chunk lengths that may lie on the floor
Table = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Fit:
    """A law fitted on every point, and the seconds that fits without a point gave for it."""

    law: StepLaw
    held_out_s: np.ndarray  # [N], of the law fitted without the point's fold
    fit_error: dict[str, float]  # of these, percent, by kind of step


def fit(points: Sequence[Point], rng: np.random.Generator) -> Fit:
    """Fit relative error by non-negative least squares; state the cross-validated error.

    Kinds of step weigh alike, however many points there are of each. The steps of a stage are left
    out together, a fifth of the stages of each kind at a time.
    """
    require(len(points) >= FOLDS, f"a fit needs {FOLDS} points or more", points=len(points))
    table = points_table(points)
    kinds = np.array([point.kind for point in points])
    folds = _folds(points, rng)
    held_out_s = np.empty(len(points))
    for fold in range(FOLDS):
        seen = folds != fold
        law = _best(_take(table, seen), kinds[seen])
        held_out_s[~seen] = seconds(law, _take(table, ~seen))
    off = 100.0 * np.abs(held_out_s / table["seconds"] - 1.0)
    found = {
        "held_out_mean_abs_pct": float(off.mean()),
        "held_out_max_abs_pct": float(off.max()),
        "repeat_spread_pct": 100.0 * float(np.median([point.spread for point in points])),
    }
    for kind in sorted(set(kinds.tolist())):
        found[f"{kind}_mean_abs_pct"] = float(off[kinds == kind].mean())
        found[f"{kind}_max_abs_pct"] = float(off[kinds == kind].max())
    return Fit(_best(table, kinds), held_out_s, found)


def seconds(law: StepLaw, table: Table) -> np.ndarray:
    """Return the law's seconds of each step of a table of features, ``[N]``."""
    return law.step_s(
        table["n_decode"],
        table["kv_tokens_read"],
        table["prompt_tokens"],
        table["prompt_squares"],
        table["kv_longest"],
        table["pages_scored"],
    )


def _folds(points: Sequence[Point], rng: np.random.Generator) -> np.ndarray:
    fold_of: dict[int, int] = {}
    for kind in sorted({point.kind for point in points}):
        stages = sorted({point.stage for point in points if point.kind == kind} - set(fold_of))
        shuffled = rng.permutation(stages).tolist()
        fold_of |= {stage: index % FOLDS for index, stage in enumerate(shuffled)}
    return np.array([fold_of[point.stage] for point in points])


def _take(table: Table, chosen: np.ndarray) -> Table:
    return {name: column[chosen] for name, column in table.items()}


def _best(table: Table, kinds: np.ndarray) -> StepLaw:
    """Return the law with the least weighted error over every knee and floor tried.

    Points that a slow moment of the machine has moved far off are weighted down, by Huber's rule.
    """
    base = 1.0 / table["seconds"]
    for kind in set(kinds.tolist()):
        base[kinds == kind] /= np.sqrt((kinds == kind).sum())
    weights = base

    def miss(law: StepLaw) -> float:
        return float(np.sum((weights * (seconds(law, table) - table["seconds"])) ** 2))

    law = min(_candidates(table, weights), key=miss)
    for _ in range(ROUNDS):
        weights = base * _trust(seconds(law, table) / table["seconds"] - 1.0)
        law = min(_candidates(table, weights), key=miss)
    return law


def _trust(off: np.ndarray) -> np.ndarray:
    """Return Huber's weights, to be multiplied onto errors: points far off count by their sign."""
    limit = HUBER * max(float(np.median(np.abs(off))), 1e-9)
    return np.sqrt(np.minimum(1.0, limit / np.maximum(np.abs(off), limit)))


def _candidates(table: Table, weights: np.ndarray) -> Iterator[StepLaw]:
    """Yield the law of each knee, a batch that was timed, and of each set of floored chunks."""
    prompt = table["prompt_tokens"]
    short = np.unique(prompt[prompt > 0])[:SHORT_CHUNKS].tolist()
    alone = table["n_decode"][prompt == 0]
    knees = np.unique(alone)[:-1].tolist()
    for limit in (0.0, *short):
        for knee in knees or [0.0]:
            yield _solve(table, weights, knee, (prompt > 0) & (prompt <= limit))


def _solve(table: Table, weights: np.ndarray, knee: float, floored: np.ndarray) -> StepLaw:
    from scipy.optimize import nnls

    rows, kv, squares = table["n_decode"], table["kv_tokens_read"], table["prompt_squares"]
    has_prompt = table["prompt_tokens"] > 0
    free = has_prompt & ~floored
    columns = {
        "base_s": ~has_prompt,
        "per_decode_s": rows,
        "per_kv_token_s": kv,
        "per_prompt_token_s": table["prompt_tokens"] * free,
        "per_prompt_square_s": squares * free,
        "per_prompt_context_s": squares / np.maximum(table["prompt_tokens"], 1.0) * free,
        "per_skewed_kv_token_s": np.maximum(rows * table["kv_longest"] - kv, 0.0),
        "per_mixed_decode_s": rows * has_prompt,
        "per_mixed_kv_token_s": kv * has_prompt,
        "per_scored_unit_s": table["pages_scored"],
        "pruned_step_s": table["pages_scored"] > 0,
        "per_knee_decode_s": np.maximum(rows - knee, 0.0) * ~has_prompt,
        "floor_s": floored,
        "prompt_base_s": free,
    }
    design = np.stack(list(columns.values()), axis=1).astype(float)
    most = design.max(axis=0)
    scale = np.where(most > 0.0, most, 1.0)  # columns span nine decades; nnls wants them alike
    solved, _ = nnls(design / scale * weights[:, None], table["seconds"] * weights)
    found = dict(zip(columns, (solved / scale).tolist(), strict=True))
    return _law(found, knee)


def _law(found: dict[str, float], knee: float) -> StepLaw:
    """Tell an intercept of prompts below that of decode steps from one above."""
    own, base = found.pop("prompt_base_s"), found["base_s"]
    if base == 0.0:  # no step without a prompt was timed, or none costs anything
        found["base_s"] = base = own
    hidden = max(0.0, base - own)
    if hidden > 0.0:
        found["floor_s"] = max(found["floor_s"], base)
    return StepLaw(
        **found,
        prompt_overlap_s=hidden,
        prompt_step_s=max(0.0, own - base),
        decode_knee=knee if found["per_knee_decode_s"] > 0.0 else 0.0,
    )
