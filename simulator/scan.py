"""What the temperature and coverage laws will do to every token, computed before any clock runs.

Micro and meso read nothing about load or duration, so a request's temperatures, coverages and
entropies do not depend on when it is served. All requests are therefore run through the very law
objects in one pass over token positions, thousands of lanes at a time, and a simulation need only
look its tokens up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from controllers.preset import Preset
from controllers.temperature import X_MAX, X_MIN
from simulator.model import TraceModel
from simulator.ragged import Ragged
from simulator.residual import Residual
from simulator.scan_coverage import NEVER, coverage_pass, scannable, share_pass
from simulator.scan_lanes import F32, Lanes
from simulator.scan_temperature import outcome_pass, temperature_pass
from simulator.scripts import Scripts

__all__ = ["NEVER_OFF", "Sums", "Trajectory", "scan", "scannable", "sums"]

NEVER_OFF = NEVER
CLIP_TOLERANCE = 1e-6  # of ln T, as ``controllers.serving.metrics`` has it


class Sums(NamedTuple):
    """What metrics add up over tokens; nats but for the last."""

    tau: float  # entropy given up from token to token, at the applied T
    tau_cal: float  # the same at T_cal
    net: float  # H of the first less H of the last, at T_cal
    nll: float  # expected, at T = 1
    on_bound: int  # tokens whose ln T is on a bound


class Trajectory(NamedTuple):
    """Everything a ledger or a step needs to know of one request's tokens, ``[L]`` each."""

    coverage: np.ndarray  # float32, attention mass asked of the row that samples the token
    share: np.ndarray  # float64, pages that row reads
    command: np.ndarray  # float32, ln T
    h_applied: np.ndarray  # float32, nats
    h_cal: np.ndarray  # float32, nats
    surprisal: np.ndarray  # float32, nats, expected NLL at T = 1
    n_tokens: int  # L: the true length, capped by max_tokens
    stops: bool  # whether it ends by a stop token, or by max_tokens
    least: float  # lowest coverage
    tau: float  # this and the four below: ``Sums`` over all its tokens
    tau_cal: float
    net: float
    nll: float
    on_bound: int


COLUMNS = Trajectory._fields[:6]  # those of one value per token


def scan(
    scripts: Scripts,
    model: TraceModel,
    residual: Residual,
    preset: Preset,
    *,
    off_at: np.ndarray | None = None,
) -> list[Trajectory]:
    """Return the trajectory of each request of ``scripts``; the laws are those of ``preset``.

    All are held at once: callers cut long workloads into blocks. ``off_at`` (int ``[R]``,
    ``NEVER_OFF`` for none) is the token from which a request's control is switched off.
    """
    if not len(scripts.lengths):
        return []
    order = np.argsort(-scripts.lengths, kind="stable")
    ragged = Ragged(scripts.lengths[order])
    lanes = Lanes.of(
        scripts.asked.taken(order),
        ragged,
        scripts.rows.take(ragged.spread(scripts.starts[order])),
        None if off_at is None else off_at[order],
    )
    pruned = coverage_pass(lanes, model, residual, preset)
    commands = temperature_pass(lanes, pruned, model, preset)
    wanted = pruned.wanted
    parts = {
        "coverage": wanted,
        "command": commands,
        "h_cal": pruned.h_cal,
        "factor": pruned.factor,
    }
    greedy = None
    if lanes.greedy.any():
        greedy = np.repeat(lanes.greedy[np.argsort(order)], scripts.lengths)
    back = ragged.by_request(scripts.starts[order])
    del lanes, ragged, pruned, commands  # each column goes when it is placed
    tokens = _columns(len(back), factor=parts["factor"] is not None)
    if wanted.dtype != F32:  # in full, for the share is read there
        wanted = wanted.take(back)
        tokens["coverage"][:] = wanted
        del parts["coverage"]
    for name, values in tokens.items():
        if (part := parts.pop(name, None)) is not None:
            np.take(part, back, out=values, mode="clip")  # "raise" would take twice
    del back, part, values
    in_full = tokens["coverage"] if wanted.dtype == F32 else wanted
    tokens["rows"] = scripts.rows
    share_pass(scripts.rows, in_full, model, out=tokens["share"])
    outcome_pass(tokens, greedy, model)
    return _cut(tokens, scripts)


def _columns(total: int, *, factor: bool) -> dict[str, np.ndarray]:
    """Return room for the columns of a trajectory and what they are made from, ``[total]`` each.

    Those that stay lie in one piece: memory of 4 MB or more comes in large pages.
    """
    kept = np.empty((7, total), F32)
    room: dict[str, np.ndarray] = {"share": kept[:2].reshape(-1).view(np.float64)}
    for column, name in enumerate(("command", "h_cal", "coverage", "h_applied", "surprisal"), 2):
        room[name] = kept[column]
    if factor:
        room["factor"] = np.empty(total)
    return room


def sums(found: Trajectory, first: int = 0, last: int | None = None) -> Sums:
    """Return the sums over tokens ``[first, last)``; the step into ``first`` is counted if any."""
    tokens = slice(first, last)
    with_one_before = slice(max(first - 1, 0), last)
    step_h, step_cal = (
        np.diff(values[with_one_before]) for values in (found.h_applied, found.h_cal)
    )
    return Sums(
        tau=float(-np.minimum(step_h, 0.0).sum(dtype=np.float64)) + 0.0,
        tau_cal=float(-np.minimum(step_cal, 0.0).sum(dtype=np.float64)) + 0.0,
        net=float(-step_cal.sum(dtype=np.float64)) + 0.0,
        nll=float(found.surprisal[tokens].sum(dtype=np.float64)),
        on_bound=int(_on_bound(found.command[tokens]).sum()),
    )


def _cut(tokens: dict[str, np.ndarray], scripts: Scripts) -> list[Trajectory]:
    """Cut tokens, request after request, into trajectories."""
    starts, stops = scripts.starts, scripts.stops
    values = [tokens[name] for name in COLUMNS]
    edges = [*starts.tolist(), len(tokens["command"])]
    least = np.minimum.reduceat(tokens["coverage"], starts).tolist()
    ends = zip(edges, edges[1:], stops.tolist(), least, _totals(tokens, starts), strict=False)
    return [
        Trajectory._make([*[v[begin:end] for v in values], end - begin, stop, low, *total])
        for begin, end, stop, low, total in ends
    ]


def _totals(
    columns: dict[str, np.ndarray], starts: np.ndarray
) -> Iterator[tuple[float, float, float, float, int]]:
    """Return the ``Sums`` over all tokens of each lane, as plain tuples."""

    def steps(h: np.ndarray) -> np.ndarray:
        found = np.empty_like(h)
        np.subtract(h[1:], h[:-1], out=found[1:])
        found[starts] = 0.0  # no step leads into a first token
        return found

    def total(values: np.ndarray) -> list[float]:
        return (np.add.reduceat(values, starts, dtype=np.float64) + 0.0).tolist()

    step_cal = steps(columns["h_cal"])
    on_bound = np.add.reduceat(_on_bound(columns["command"]), starts, dtype=np.int64)
    found = (
        total(-np.minimum(steps(columns["h_applied"]), 0.0)),
        total(-np.minimum(step_cal, 0.0)),
        total(-step_cal),
        total(columns["surprisal"]),
        on_bound.tolist(),
    )
    return zip(*found, strict=True)


def _on_bound(command: np.ndarray) -> np.ndarray:
    low, high = (np.abs(command - F32(bound)) <= CLIP_TOLERANCE for bound in (X_MIN, X_MAX))
    return low | high
