"""What the temperature law of a preset does to every token, in one pass over token positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from controllers.core import State, TemperatureLaw
from controllers.preset import Preset
from simulator.law_run import LawRun
from simulator.model import TraceModel
from simulator.ragged import pieces
from simulator.reads import FIXED, fields_read
from simulator.residual import response
from simulator.scan_coverage import AT_T_CAL, Pruned
from simulator.scan_lanes import F32, PIECE, Lanes, applied

CURRENT = frozenset({"h_in", "v_in"})  # measured where the law asks
ENABLED = frozenset({"enabled"})  # moves where somebody switches control off


def temperature_pass(lanes: Lanes, pruned: Pruned, model: TraceModel, preset: Preset) -> np.ndarray:
    """Return ln T of every token by position, float32 ``[total]``."""
    law = cast("TemperatureLaw", applied(preset.temperature))
    reads = fields_read(law)
    if reads <= FIXED and lanes.off_at is None:
        state, commands = law.update(law.init(lanes.fixed), lanes.fixed)
        again, repeated = law.update(state, lanes.fixed)
        if _same(state, again) and np.array_equal(commands, repeated):
            return commands.take(lanes.ragged.lanes)  # a pure law that stood still will for ever
    with np.errstate(invalid="ignore", over="ignore"):  # laws state what they do with NaN
        return _Pass(lanes, pruned, model, law, reads).run()


class _Pass:
    """One block of lanes; arrays by position, ``[total]``, unless said otherwise."""

    def __init__(
        self,
        lanes: Lanes,
        pruned: Pruned,
        model: TraceModel,
        law: TemperatureLaw,
        reads: frozenset[str],
    ) -> None:
        self._lanes, self._pruned, self._model = lanes, pruned, model
        moving = reads & (CURRENT | AT_T_CAL | {"surprisal"})
        self._law = LawRun(law, lanes.fixed, moving if lanes.off_at is None else moving | ENABLED)
        total = lanes.ragged.total
        self._measures = bool(moving & CURRENT)
        self._x_in = np.zeros(total if self._measures else 0, F32)
        # By name, what the law reads that does not wait for it.
        self._ready: dict[str, np.ndarray] = {}
        for name in moving & AT_T_CAL:
            self._ready[name] = {
                "h_cal": lambda: pruned.h_cal,
                "v_cal": lambda: model.v_cal.take(lanes.rows).astype(F32),
                "position": lambda: lanes.ragged.positions.astype(F32),
            }[name]()

    def run(self) -> np.ndarray:
        """Advance the law position by position."""
        lanes, law = self._lanes, self._law
        commands = np.empty(lanes.ragged.total, F32)
        law.start(lanes.fixed)
        for run in lanes.ragged.runs():
            law.bind(run.lanes)
            for t, begin in zip(run.positions, run.edges, strict=False):
                at = slice(begin, begin + run.lanes)
                self._measure(t, at)
                law.step()
                commands[at] = law.command
                if "surprisal" in law.inputs:
                    law.inputs["surprisal"][:] = self._sampled(at, law.command)
        self._model.curves.require_inside(self._x_in)
        return commands

    def _measure(self, t: int, at: slice) -> None:
        """Fill in the signals of token ``t`` as far as the law reads them."""
        inputs, off_at = self._law.inputs, self._lanes.off_at
        if self._measures:
            x = self._law.x_in()
            self._x_in[at] = x
            if "h_in" in inputs or "v_in" in inputs:  # else control is off in every lane
                self._read(at, x, inputs)
        for name in self._ready.keys() & inputs.keys():
            inputs[name][:] = self._ready[name][at]
        if off_at is not None and "enabled" in inputs:
            enabled = self._lanes.fixed.enabled[: at.stop - at.start]
            inputs["enabled"][:] = np.where(t < off_at[: len(enabled)], enabled, F32(0.0))

    def _read(self, at: slice, x: np.ndarray, inputs: dict[str, np.ndarray]) -> None:
        h, v = self._model.curves.read(self._lanes.rows[at], x)
        if self._pruned.factor is not None:
            scale = response(h, v)
            scale *= self._pruned.factor[at]
            h += scale
        for name, values in (("h_in", h), ("v_in", v)):
            if name in inputs:
                inputs[name][:] = values

    def _sampled(self, at: slice, command: np.ndarray) -> np.ndarray:
        """Return the expected NLL of the tokens just sampled, for a law that reads it."""
        x = np.where(self._lanes.greedy[: len(command)], self._model.curves.x_nodes[0], command)
        return self._model.curves.read_nll(self._lanes.rows[at], x)


def outcome_pass(
    tokens: Mapping[str, np.ndarray], greedy: np.ndarray | None, model: TraceModel
) -> None:
    """Fill in ``h_applied`` and ``surprisal``: H at the applied T and expected NLL at T = 1.

    ``tokens`` hold these, float32 ``[total]``, and ``rows``, ``command``, ``h_cal`` and, where
    pruning moves H, ``factor``, in any order; quickest where neighbours have neighbouring rows. A
    greedy token (None: no one is), whose argmax has no T, has H at T_cal and the NLL of the lowest
    node.
    """
    curves, total, factor = model.curves, len(tokens["rows"]), tokens.get("factor")
    h_applied, surprisal = tokens["h_applied"], tokens["surprisal"]
    for piece in pieces(total, PIECE):
        x = tokens["command"][piece]
        if greedy is not None:
            x = np.where(greedy[piece], curves.x_nodes[0], x)
        h, v, nll = curves.outcome(tokens["rows"][piece], x)
        if factor is not None:
            h += factor[piece] * response(h, v)
        h_applied[piece] = h
        surprisal[piece] = nll
    if greedy is not None:
        np.copyto(h_applied, tokens["h_cal"], where=greedy)


def _same(a: State, b: State) -> bool:
    if isinstance(a, tuple):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b, equal_nan=True))
