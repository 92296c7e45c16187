"""What the coverage law of a preset asks of every token, in one pass over token positions.

By contract coverage laws read entropies at T_cal, which temperature does not move: this pass comes
first, and knows nothing of the temperature law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.core import TokenSignal
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from simulator.law_run import LawRun
from simulator.model import TraceModel
from simulator.ragged import pieces
from simulator.reads import FIXED, fields_read
from simulator.residual import Residual, counter_key, keyed_normal, response
from simulator.scan_lanes import F32, PIECE, Lanes, applied

NEVER = 2**62  # a token no request reaches
AT_T_CAL = frozenset({"h_cal", "v_cal", "position"})


@dataclass(frozen=True, slots=True)
class Pruned:
    """What coverage does to every token, by position, ``[total]``."""

    coverage: np.ndarray  # float32
    share: np.ndarray  # float64, of pages kept
    probe: np.ndarray  # bool
    factor: np.ndarray | None  # float64, what multiplies ``response``; None: nothing is moved
    h_cal: np.ndarray  # float32, nats


def scannable(preset: Preset) -> bool:
    """Tell whether the laws of ``preset`` can be scanned before any clock runs."""
    return not _beyond(preset)


def coverage_pass(lanes: Lanes, model: TraceModel, residual: Residual, preset: Preset) -> Pruned:
    """Run the coverage law, its commands ruled as ``CoverageControl.row`` rules them."""
    beyond = _beyond(preset)
    if beyond:
        raise ValueError(f"a scanned coverage law must read H and V at T_cal only; got {beyond}")
    law = applied(preset.coverage)
    if isinstance(law, FixedCoverage) and law.coverage >= 1.0:
        return _dense(lanes, model)
    return _Pass(lanes, model, residual, preset).run()


def _beyond(preset: Preset) -> list[str]:
    return sorted(fields_read(applied(preset.coverage)) - FIXED - AT_T_CAL)


def _dense(lanes: Lanes, model: TraceModel) -> Pruned:
    total = lanes.ragged.total
    h_cal = model.h_cal.take(lanes.rows).astype(F32)
    return Pruned(np.ones(total, F32), np.ones(total), np.zeros(total, bool), None, h_cal)


class _Pass:
    """One block of lanes; arrays by position, ``[total]``, unless said otherwise."""

    def __init__(self, lanes: Lanes, model: TraceModel, residual: Residual, preset: Preset) -> None:
        self._lanes, self._model, self._residual = lanes, model, residual
        law = applied(preset.coverage)
        self._fixed = lanes.fixed._replace(enabled=lanes.enabled.astype(F32))
        moving = fields_read(law) & AT_T_CAL
        self._law = LawRun(law, self._fixed, moving)
        total = lanes.ragged.total
        self._eligible, due = _eligible(lanes, preset)
        self._pruned = self._eligible & ~due  # where the command is carried out, if it is sparse
        # Commands are float32; a minimum of the user's own is compared in full.
        self._wanted = np.empty(total, np.float64 if lanes.min_coverage.any() else F32)
        # In pairs: memory of 4 MB comes in large pages, which spares hundreds of faults a column.
        self._share, self._factor = np.empty((2, total))
        self._normals()  # until its coverage is known, each token's factor is its normal alone
        self._h_cal = np.empty(total, F32)
        self._dense_h, self._scale = np.empty((2, total))
        # By name, what the law reads that does not wait for it.
        self._ready: dict[str, np.ndarray] = {}
        if "v_cal" in moving:
            self._ready["v_cal"] = np.empty(total, F32)
        if "position" in moving:
            self._ready["position"] = lanes.ragged.positions.astype(F32)
        self._look_up()

    def _look_up(self) -> None:
        """Read what is recorded of each token: H, how far it gives, and V if the law reads it."""
        model, ready = self._model, self._ready.get("v_cal")
        for piece in pieces(len(self._dense_h), PIECE):
            rows = self._lanes.rows[piece]
            h, v = model.h_cal.take(rows), model.v_cal.take(rows)
            self._dense_h[piece] = h
            self._scale[piece] = response(h, v)
            if ready is not None:
                ready[piece] = v

    def run(self) -> Pruned:
        """Advance the law position by position, then rule its commands."""
        lanes, law = self._lanes, self._law
        places = _Places(self._model, self._residual, self._wanted.dtype, len(lanes.ids))
        held = np.ones(len(lanes.ids), self._wanted.dtype)  # before the law has seen anything
        with np.errstate(invalid="ignore", over="ignore"):  # laws state what they do with NaN
            for run in lanes.ragged.runs():
                law.bind(run.lanes)
                places.bind(run.lanes)
                held = held[: run.lanes]
                for k, begin in enumerate(run.edges[:-1]):
                    at = slice(begin, begin + run.lanes)
                    self._prune(at, run.edges[k + 1], held, places)
                    if begin == 0:
                        law.start(self._first(at))
                        law.bind(run.lanes)
                    for name, values in law.inputs.items():
                        values[:] = self._h_cal[at] if name == "h_cal" else self._ready[name][at]
                    law.step()
                    held = law.command
                    if self._wanted.dtype == np.float64:
                        held = np.maximum(held, lanes.min_coverage[: run.lanes])
        return self._ruled()

    def _prune(self, at: slice, end: int, held: np.ndarray, places: _Places) -> None:
        """Read shares and H at coverages ``held``; tokens ``at``, of which real ones ``end``."""
        self._wanted[at] = held
        share = self._share[at]
        factor = places.read(held, self._lanes.rows[at], self._factor[at], share)
        self._factor[at.start : end] = factor[: end - at.start]  # the next position's are normals
        moved = factor * self._scale[at]
        moved += self._dense_h[at]
        self._h_cal[at] = moved

    def _first(self, at: slice) -> TokenSignal:
        ready = {name: values[at] for name, values in self._ready.items()}
        return self._fixed._replace(h_cal=self._h_cal[at], **ready)

    def _normals(self) -> None:
        """Give each token that may be pruned its standard normal, and the others 0."""
        ragged, normals = self._lanes.ragged, self._factor
        normals[:] = 0.0
        if self._residual.silent:
            return
        key = counter_key(self._residual.seed, self._lanes.ids)
        for piece in pieces(ragged.total, PIECE):
            at = np.flatnonzero(self._pruned[piece]) + piece.start
            normals[at] = keyed_normal(key.take(ragged.lanes[at]), ragged.positions[at])

    def _ruled(self) -> Pruned:
        wanted = self._wanted
        inside = (wanted > 0.0) & (wanted < 1.0)
        sparse = self._pruned & inside
        self._model.shares.require_recorded(wanted[sparse])
        self._share[~sparse] = 1.0
        wanted[~sparse] = 1.0
        return Pruned(
            coverage=wanted.astype(F32, copy=False),
            share=self._share,
            probe=self._eligible & ~self._pruned & inside,
            factor=None if self._residual.silent else self._factor,
            h_cal=self._h_cal,
        )


class _Places:
    """Where each lane's coverage lies between the recorded ones; dwelling laws seldom move it."""

    def __init__(
        self, model: TraceModel, residual: Residual, kind: np.dtype[Any], lanes: int
    ) -> None:
        self._shares = model.shares
        self._levels, self._sigmas = residual.line()
        self._full = bool((model.shares.shares >= 1.0).any())  # a sparse row may keep every page
        self._held = np.ones(lanes, kind)
        self._sigma = np.zeros(lanes)  # of the residual; 0 where the command is not sparse
        self._wide = np.array(model.shares.shares.shape[1], np.intp)
        self._index = np.zeros(lanes, np.intp)
        self._part = np.zeros(lanes)

    def bind(self, lanes: int) -> None:
        """Go on with the first ``lanes``."""
        self._held, self._sigma = self._held[:lanes], self._sigma[:lanes]
        self._index, self._part = self._index[:lanes], self._part[:lanes]

    def read(
        self, held: np.ndarray, rows: np.ndarray, normals: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        """Return the residual's factor of each lane at coverage ``held``; fill in ``share``."""
        moved = (held != self._held).nonzero()[0]
        if len(moved):
            self._move(moved, held.take(moved))
        index = rows * self._wide
        index += self._index
        self._shares.read(index, self._part, share)
        factor = normals * self._sigma
        np.minimum(np.maximum(factor, -1.0, out=factor), 1.0, out=factor)
        if self._full:
            np.putmask(factor, share >= 1.0, 0.0)
        return factor

    def _move(self, moved: np.ndarray, held: np.ndarray) -> None:
        self._held[moved] = held
        coverage = held.astype(np.float64)
        self._index[moved], self._part[moved] = self._shares.place(coverage)
        sigma = np.interp(coverage, self._levels, self._sigmas)
        sigma *= (coverage > 0.0) & (coverage < 1.0)
        self._sigma[moved] = sigma


def _eligible(lanes: Lanes, preset: Preset) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens may be pruned if the law says so, and which are due for a probe."""
    long_enough = np.maximum(preset.sparse_min_context - lanes.prompt, 1)
    first = np.where(lanes.enabled, long_enough, NEVER)
    last = np.full(len(first), NEVER) if lanes.off_at is None else lanes.off_at
    every = preset.probe_every
    eligible, due = np.empty(lanes.ragged.total, bool), np.zeros(lanes.ragged.total, bool)
    for piece in pieces(lanes.ragged.total, PIECE):
        position, lane = lanes.ragged.positions[piece], lanes.ragged.lanes[piece]
        eligible[piece] = (position >= first.take(lane)) & (position < last.take(lane))
        if every > 0:
            due[piece] = (position + lanes.ids.take(lane)) % every == 0
    return eligible, due
