"""Fit a step law to a table of steps, and say how far it is off on steps it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from controllers.core import require
from controllers.steplaw import StepLaw

HELD_OUT = 4  # one step in so many
FLOORS_TRIED = 24


@dataclass(frozen=True, slots=True)
class StepTable:
    """Timed or composed steps; float64 ``[N]`` each, in the step law's own features."""

    n_decode: np.ndarray
    kv_tokens_read: np.ndarray
    prompt_tokens: np.ndarray
    prompt_squares: np.ndarray
    seconds: np.ndarray

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        require(len(set(sizes.values())) == 1, "step table columns must be of one length", **sizes)
        worst = float(np.min(self.seconds, initial=np.inf))
        require(0.0 < worst < np.inf, "step times must be > 0 and one at least", smallest=worst)

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, chosen: np.ndarray) -> StepTable:
        """Return the chosen rows."""
        return StepTable(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def kinds(self) -> dict[str, np.ndarray]:
        """Return masks by what the step holds: decode rows, prompt tokens, or both."""
        decode, prompt = self.n_decode > 0, self.prompt_tokens > 0
        return {"decode": decode & ~prompt, "prefill": prompt & ~decode, "mixed": prompt & decode}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the range of each feature among the steps that have it."""
        found = {}
        for field in fields(self)[:-1]:
            held = getattr(self, field.name)
            held = held[held > 0]
            if len(held):
                found[field.name] = (float(held.min()), float(held.max()))
        return found


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """A law fitted on every step of a table, and its error on held-out ones."""

    law: StepLaw
    fit_error: dict[str, float]
    ranges: dict[str, tuple[float, float]]


def joined(tables: Sequence[StepTable]) -> StepTable:
    """Return the rows of all tables, in order."""
    names = [field.name for field in fields(StepTable)]
    return StepTable(*(np.concatenate([getattr(t, name) for t in tables]) for name in names))


def fit_law(table: StepTable, *, per_skewed_kv_token_s: float = 0.0, seed: int = 0) -> FittedLaw:
    """Fit relative error by non-negative least squares; hold out a quarter to state the error.

    Decode-only and prefill-only steps weigh alike, however many there are of each. What mixed steps
    take beyond these two is fitted after them, so that it cannot bend the price of KV; where one
    of the two is missing, mixed steps stand in for it. Which prompt steps sit on the floor
    is tried in order of their prompt's cost. The law returned is fitted on every step; the errors
    are those of a fit without the held-out quarter, percent. ``per_skewed_kv_token_s`` is handed
    through: rows of a table have equal contexts.
    """
    held = np.zeros(len(table), bool)
    for mask in table.kinds().values():
        members = np.flatnonzero(mask)
        shuffled = np.random.default_rng(seed).permutation(members)
        held[shuffled[: len(members) // HELD_OUT]] = True
    trial = _with_mixed(table.take(~held))
    unseen = table.take(held) if held.any() else table
    law = _with_mixed(table)
    final = {**law.to_json(), "per_skewed_kv_token_s": per_skewed_kv_token_s}
    return FittedLaw(StepLaw.from_json(final), errors(trial, unseen), table.ranges())


def errors(law: StepLaw, table: StepTable) -> dict[str, float]:
    """Return the law's mean and largest absolute error on ``table``, percent, by kind of step."""
    off = 100.0 * np.abs(predicted(law, table) / table.seconds - 1.0)
    found = {
        "held_out_mean_abs_pct": float(off.mean()),
        "held_out_max_abs_pct": float(off.max()),
    }
    for kind, mask in table.kinds().items():
        if mask.any():
            found[f"{kind}_mean_abs_pct"] = float(off[mask].mean())
            found[f"{kind}_max_abs_pct"] = float(off[mask].max())
    return found


def predicted(law: StepLaw, table: StepTable) -> np.ndarray:
    """Return the law's seconds of each step, ``[N]``."""
    return law.step_s(
        table.n_decode, table.kv_tokens_read, table.prompt_tokens, table.prompt_squares
    )


def _with_mixed(table: StepTable) -> StepLaw:
    from scipy.optimize import nnls

    law = _fit(table)
    mixed = table.take(table.kinds()["mixed"]) if _pure(table) else None
    if mixed is None:
        return law
    design = np.stack([mixed.n_decode, mixed.kv_tokens_read], axis=1).astype(float)
    scale = design.max(axis=0)
    excess = 1.0 - predicted(law, mixed) / mixed.seconds
    solved, _ = nnls(design / scale / mixed.seconds[:, None], excess)
    per_decode, per_kv = (solved / scale).tolist()
    return replace(law, per_mixed_decode_s=per_decode, per_mixed_kv_token_s=per_kv)


def _pure(table: StepTable) -> bool:
    """Return whether there are steps of each kind, so that mixed ones are fitted apart."""
    return all(mask.any() for mask in table.kinds().values())


def _fit(table: StepTable) -> StepLaw:
    """Return the best law over what sits on the floor, and whether prompts hide some of base.

    The floor is tried under the cheapest so many prompts, for any number; from the best of these
    on, under the steps that the law found there puts on it, while that brings the error down.
    """
    table = table.take(_weights(table) > 0.0)
    prompt = table.prompt_tokens > 0
    cost = table.prompt_tokens + table.prompt_squares / max(1.0, table.prompt_squares.max())
    limits = [-1.0]
    if prompt.any():
        limits += np.unique(np.quantile(cost[prompt], np.linspace(0, 1, FLOORS_TRIED))).tolist()
    best = [
        min(
            (_solve(table, prompt & (cost <= limit), overlap=overlap) for limit in limits),
            key=lambda law: _score(law, table),
        )
        for overlap in ((False, True) if prompt.any() else (False,))
    ]
    refined = [_refine(law, table, overlap=bool(index)) for index, law in enumerate(best)]
    law = min(refined, key=lambda law: _score(law, table))
    assert law is not None  # without an overlap there is always a law
    return law


def _refine(law: StepLaw | None, table: StepTable, *, overlap: bool) -> StepLaw | None:
    score = _score(law, table)
    while law is not None:
        prompt_s = law.per_prompt_token_s * table.prompt_tokens
        prompt_s = prompt_s + law.per_prompt_square_s * table.prompt_squares
        below = law.base_s - law.prompt_overlap_s + prompt_s < law.floor_s
        found = _solve(table, below & (table.prompt_tokens > 0), overlap=overlap)
        if _score(found, table) >= score:
            break
        law, score = found, _score(found, table)
    return law


def _score(law: StepLaw | None, table: StepTable) -> float:
    if law is None:
        return np.inf
    return float(np.sum((_weights(table) * (predicted(law, table) - table.seconds)) ** 2))


def _solve(table: StepTable, floored: np.ndarray, *, overlap: bool) -> StepLaw | None:
    """Return the best law whose floor holds the steps ``floored``, a mask ``[N]``.

    With ``overlap`` prompts have an intercept of their own; None where it is not below the base.
    """
    from scipy.optimize import nnls

    free = (table.prompt_tokens > 0) & ~floored
    apart = free & overlap
    columns = {
        "base_s": (~floored & ~apart).astype(float),
        "per_decode_s": table.n_decode,
        "per_kv_token_s": table.kv_tokens_read,
        "per_prompt_token_s": table.prompt_tokens * free,
        "per_prompt_square_s": table.prompt_squares * free,
        "floor_s": floored.astype(float),
        "prompt_base_s": apart.astype(float),
    }
    design = np.stack(list(columns.values()), axis=1).astype(float)
    scale = np.maximum(design.max(axis=0), np.finfo(float).tiny)  # columns span nine decades
    weights = _weights(table)
    solved, _ = nnls(design / scale * weights[:, None], table.seconds * weights)
    found = dict(zip(columns, (solved / scale * (design.max(axis=0) > 0)).tolist(), strict=True))
    own = found.pop("prompt_base_s")
    if not overlap:
        return StepLaw(**found)
    if own >= found["base_s"]:
        return None
    found["floor_s"] = max(found["floor_s"], found["base_s"])
    return StepLaw(**found, prompt_overlap_s=found["base_s"] - own)


def _weights(table: StepTable) -> np.ndarray:
    weights, kinds = 1.0 / table.seconds, table.kinds()
    if _pure(table):
        weights[kinds["mixed"]] = 0.0
    for mask in kinds.values():
        if mask.any():
            weights[mask] /= np.sqrt(mask.sum())
    return weights
