"""What the coverage law of a preset asks of every token, in one pass over token positions.

By contract coverage laws read entropies at T_cal, which temperature does not move: this pass comes
first, and knows nothing of the temperature law.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
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
NEARLY_ALL = 1.0 - 1e-9  # a share above it may be read as 1
LOWEST, HIGHEST = np.full((), -1.0), np.ones(())  # sooner than numbers, as in ``curves``
ALWAYS = np.ones(1, bool)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What coverage does to every token, by position, ``[total]``."""

    wanted: np.ndarray  # coverage: float32, or float64 where requests have minima of their own
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
    return Pruned(np.ones(total, F32), None, h_cal)


class _Pass:
    """One block of lanes; arrays by position, ``[total]``, unless said otherwise."""

    def __init__(self, lanes: Lanes, model: TraceModel, residual: Residual, preset: Preset) -> None:
        self._lanes, self._model, self._residual = lanes, model, residual
        law = applied(preset.coverage)
        self._fixed = lanes.fixed._replace(enabled=lanes.enabled.astype(F32))
        moving = fields_read(law) & AT_T_CAL
        self._law = LawRun(law, self._fixed, moving)
        total = lanes.ragged.total
        self._pruned = _prunable(lanes, preset)
        self._unsure: list[int] = []  # tokens whose rows keep every page at some coverages only
        self._looked = 0
        # Together: memory of 4 MB comes in large pages, which spares hundreds of faults a column.
        kept = np.empty((4, total), F32)
        self._factor = kept[:2].reshape(-1).view(np.float64)
        self._wanted, self._h_cal = kept[2:]
        self._dense_h, self._scale = np.empty((2, total))
        if lanes.min_coverage.any():  # of the user's own, which is compared in full
            self._wanted = np.empty(total)
        self._normals()  # until its coverage is known, each token's factor is its normal alone
        self._unsure.append(total)  # beyond all
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
        spread = _Spread(self._residual, self._wanted.dtype, len(lanes.ids))
        held = np.ones(len(lanes.ids), self._wanted.dtype)  # before the law has seen anything
        with np.errstate(invalid="ignore", over="ignore"):  # laws state what they do with NaN
            for run in lanes.ragged.runs():
                law.bind(run.lanes)
                spread.bind(run.lanes)
                held = held[: run.lanes]
                for begin, end in pairwise(run.edges):
                    at = slice(begin, begin + run.lanes)
                    self._prune(at, end, held, spread)
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

    def _prune(self, at: slice, end: int, held: np.ndarray, spread: _Spread) -> None:
        """Read H at coverages ``held``; tokens ``at``, of which real ones ``end``."""
        self._wanted[at] = held
        factor = spread.factor(held, self._factor[at])
        while self._unsure[self._looked] < end:  # at this coverage every page may be kept
            lane = self._unsure[self._looked] - at.start
            if self._keeps_all(at.start + lane, held[lane : lane + 1]):
                factor[lane] = 0.0
            self._looked += 1
        self._factor[at.start : end] = factor[: end - at.start]  # the next position's are normals
        moved = factor * self._scale[at]
        moved += self._dense_h[at]
        self._h_cal[at] = moved

    def _keeps_all(self, token: int, held: np.ndarray) -> bool:
        shares = self._model.shares
        left, part = shares.place(held.astype(np.float64))
        index = self._lanes.rows[token : token + 1] * shares.shares.shape[1] + left
        return shares.read(index, part).item() >= 1.0

    def _first(self, at: slice) -> TokenSignal:
        ready = {name: values[at] for name, values in self._ready.items()}
        return self._fixed._replace(h_cal=self._h_cal[at], **ready)

    def _normals(self) -> None:
        """Give each token that may be pruned its standard normal, and the others 0.

        A row that keeps every page moves nothing: 0 where that is so at any coverage, and looked at
        in its turn where it depends.
        """
        ragged, normals, shares = self._lanes.ragged, self._factor, self._model.shares.shares
        normals[:] = 0.0
        if self._residual.silent:
            return
        thin = shares[:, 0] < 1.0
        depends = thin & (shares[:, -1] > NEARLY_ALL)
        key = counter_key(self._residual.seed, self._lanes.ids)
        for piece in pieces(ragged.total, PIECE):
            rows = self._lanes.rows[piece]
            at = np.flatnonzero(self._pruned[piece] & thin.take(rows)) + piece.start
            self._unsure += (np.flatnonzero(depends.take(rows)) + piece.start).tolist()
            normals[at] = keyed_normal(key.take(ragged.lanes[at]), ragged.positions[at])

    def _ruled(self) -> Pruned:
        wanted = self._wanted
        sparse = self._pruned & (wanted > 0.0) & (wanted < 1.0)
        self._model.shares.require_recorded(wanted[sparse])
        wanted[~sparse] = 1.0
        return Pruned(
            wanted=wanted,
            factor=None if self._residual.silent else self._factor,
            h_cal=self._h_cal,
        )


class _Spread:
    """The residual's spread at each lane's coverage, which dwelling laws seldom move."""

    def __init__(self, residual: Residual, kind: np.dtype[Any], lanes: int) -> None:
        self._levels, self._sigmas = residual.line()
        self._held = np.ones(lanes, kind)
        self._sigma = np.zeros(lanes)  # 0 where the command is not sparse

    def bind(self, lanes: int) -> None:
        """Go on with the first ``lanes``."""
        self._held, self._sigma = self._held[:lanes], self._sigma[:lanes]

    def factor(self, held: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return what multiplies ``response`` in each lane at coverage ``held``."""
        moved = (held != self._held).nonzero()[0]
        if len(moved):
            coverage = held.take(moved)
            self._held[moved] = coverage
            sigma = np.interp(coverage, self._levels, self._sigmas)
            sigma *= (coverage > 0.0) & (coverage < 1.0)
            self._sigma[moved] = sigma
        factor = normals * self._sigma
        np.maximum(factor, LOWEST, out=factor)
        return np.minimum(factor, HIGHEST, out=factor)


def share_pass(rows: np.ndarray, wanted: np.ndarray, model: TraceModel, *, out: np.ndarray) -> None:
    """Fill in the share of pages that ``rows`` keep at coverages ``wanted``, all ``[total]``.

    Quickest where neighbours are of one request, for then few of their coverages differ.
    """
    shares = model.shares
    width = shares.shares.shape[1]
    for piece in pieces(len(rows), PIECE):
        here, share = wanted[piece], out[piece]
        begin = np.flatnonzero(np.concatenate([ALWAYS, here[1:] != here[:-1]]))
        left, part = shares.place(here.take(begin).astype(np.float64))
        counts = np.diff(begin, append=len(here))
        index = rows[piece] * width
        index += left.repeat(counts)
        shares.read(index, part.repeat(counts), share)
        np.putmask(share, here >= 1.0, 1.0)


def _prunable(lanes: Lanes, preset: Preset) -> np.ndarray:
    """Return where a command is carried out if it is sparse: not in probes, bool ``[total]``."""
    long_enough = np.maximum(preset.sparse_min_context - lanes.prompt, 1)
    first = np.where(lanes.enabled, long_enough, NEVER)
    last = np.full(len(first), NEVER) if lanes.off_at is None else lanes.off_at
    every = preset.probe_every
    found = np.empty(lanes.ragged.total, bool)
    for piece in pieces(lanes.ragged.total, PIECE):
        position, lane = lanes.ragged.positions[piece], lanes.ragged.lanes[piece]
        found[piece] = (position >= first.take(lane)) & (position < last.take(lane))
        if every > 0:
            found[piece] &= (position + lanes.ids.take(lane)) % every != 0
    return found
