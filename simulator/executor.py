"""The simulated executor: a recorded trace answers for the model, a step law for the clock.

It runs the preset's temperature law on numpy float32 lanes, exactly as the live executor does. It
alone knows a request's true output length (the oracle boundary); the loop learns it by "stop".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controllers.compose import Shadow
from controllers.core import TokenSignal, require
from controllers.presets import Preset
from controllers.serving import eviction
from controllers.serving.lane_table import LaneTable
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.pages import HOLE
from controllers.serving.request import Request
from controllers.steplaw import StepLaw, chunk_squares
from simulator.model import TraceModel
from simulator.residual import Residual, counter_normal, response

F32 = np.float32


@dataclass(frozen=True, slots=True)
class _Script:
    """What will happen to one request, by generated position."""

    rows: np.ndarray  # recorded row that answers for each token
    normals: np.ndarray  # standard normal of each token's residual
    prompt_tokens: int
    greedy: bool
    stops: bool  # whether the last token is a stop token, or the user's limit


class _Lanes(NamedTuple):
    """The sampled rows of one step, ``[S]`` each."""

    slots: np.ndarray
    positions: list[int]
    rows: np.ndarray  # recorded rows
    factor: np.ndarray | None  # what multiplies ``response``; None where every row is dense


class TraceExecutor:
    """Executes plans against a recording; one per replica."""

    def __init__(
        self,
        model: TraceModel,
        preset: Preset,
        step_law: StepLaw,
        *,
        residual: Residual,
        seed: int = 0,
        twin_coverage: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        """Serve ``model`` under the temperature law of ``preset``; ``seed`` keys the bootstrap.

        ``twin_coverage`` (``ServingLoop.twin_coverage``) is asked about rows that recompute.
        """
        self._model = model
        self._law = preset.temperature
        self._step_law = step_law
        self._residual = residual
        self._seed = seed
        self._twin_coverage = twin_coverage
        self._evicts = preset.kv_budget_pages is not None
        self._lanes = LaneTable(self._law, np.zeros(1, F32))
        self._scripts: dict[int, _Script] = {}
        self._units_per_page = model.layers * model.kv_heads
        self.clamped_rows = 0  # rows whose coverage lay below the lowest recorded one

    def add(self, request: Request, trace_index: int, output_tokens: int | None = None) -> None:
        """Let request ``trace_index`` of the recording answer for ``request``.

        ``output_tokens`` is the true length, by default the recorded one. More than recorded is
        filled by a block bootstrap (``TraceModel.rows``).
        """
        recorded = self._model.recorded_tokens(trace_index)
        wanted = recorded if output_tokens is None else output_tokens
        require(wanted >= 1, "output_tokens must be >= 1", output_tokens=wanted)
        if not request.greedy:
            self._model.curves.require_inside(request.x_user)
        length = min(wanted, request.max_tokens)
        ends_itself = bool(self._model.ends_itself[trace_index]) and wanted == recorded
        rng = np.random.Generator(np.random.Philox(key=[self._seed, request.request_id]))
        ids = np.full(length, request.request_id)
        self._scripts[request.request_id] = _Script(
            rows=self._model.rows(trace_index, length, rng),
            normals=counter_normal(self._residual.seed, ids, np.arange(length)),
            prompt_tokens=request.prompt_tokens,
            greedy=request.greedy,
            stops=wanted < request.max_tokens or (wanted == request.max_tokens and ends_itself),
        )
        self._lanes.add(request)

    def release(self, request_id: int) -> None:
        """Forget a finished or cancelled request; one that is unknown is left alone."""
        self._scripts.pop(request_id, None)
        self._lanes.release(request_id)

    def disable(self, request_id: int) -> None:
        """Return a request to its own temperature from the next step on."""
        self._lanes.disable(request_id)

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run one step; page counts follow from lengths, less what a table has lost to eviction.

        A recording knows no page by its mass, so eviction takes the oldest pages that may go, and
        what it does to entropies is not modelled.
        ``h_applied`` is H at the command; for a greedy row, whose argmax has none, H at T_cal.
        ``surprisal`` is the expected NLL at T = 1 of a token sampled at the command, for the
        recorded token is one draw at one temperature; greedy rows read it at the lowest node.
        """
        sampled = [row for row in plan.rows if row.samples]
        scripts = [self._scripts[row.request_id] for row in sampled]
        positions = [
            row.start + row.n_tokens - script.prompt_tokens
            for row, script in zip(sampled, scripts, strict=True)
        ]
        recorded = [int(s.rows[t]) for s, t in zip(scripts, positions, strict=True)]
        rows = np.array(recorded, np.intp)
        share, factor = self._pruning(sampled, scripts, positions, rows)
        lanes = _Lanes(self._lanes.slots(plan.sampled), positions, rows, factor)
        signals, commands, shadow = self._control(lanes)
        h_applied, surprisal = self._outcome(lanes, commands, signals, scripts)
        kept, dense, scored, duration_ns = self._price(plan, sampled, share, pages)
        return Result(
            step=plan.step,
            tokens=tuple([self._model.tokens[row] for row in recorded]),
            finished={
                row.request_id: "stop"
                for row, script, t in zip(sampled, scripts, positions, strict=True)
                if script.stops and t + 1 == len(script.rows)
            },
            signals=signals,
            commands=commands,
            h_applied=h_applied,
            surprisal=surprisal,
            page_units_read=kept,
            page_units_dense=dense,
            pages_scored=scored,
            duration_ns=duration_ns,
            shadow=shadow,
            evicted={
                row.request_id: eviction.choose(_ages(row, pages), pages[row.request_id], row)
                for row in sampled
                if row.evict
            },
        )

    def _pruning(
        self, sampled: list[Row], scripts: list[_Script], positions: list[int], rows: np.ndarray
    ) -> tuple[list[float], np.ndarray | None]:
        """Return the kept share and the residual factor of each sampled row."""
        coverage = np.array(
            [
                self._twin_coverage(row.request_id) if t > 0 and row.n_tokens > 1 else row.coverage
                for row, t in zip(sampled, positions, strict=True)
            ]
        )
        if np.all(coverage >= 1.0):
            return [1.0] * len(sampled), None
        share = self._model.shares.share(rows, coverage)
        self.clamped_rows += self._model.shares.count_below(coverage)
        normals = np.array([s.normals[t] for s, t in zip(scripts, positions, strict=True)])
        return share.tolist(), self._residual.factor(coverage, share, normals)

    def _control(self, lanes: _Lanes) -> tuple[TokenSignal, np.ndarray, np.ndarray | None]:
        """Measure at T_cal and at the law's x_in, then let the law set ln T."""
        state, last = self._lanes.read(lanes.slots)
        h_cal, v_cal = self._model.h_cal[lanes.rows], self._model.v_cal[lanes.rows]
        h_in, v_in = self._model.curves.entropy(lanes.rows, self._law.x_in(state))
        if lanes.factor is not None:
            h_cal = h_cal + lanes.factor * response(h_cal, v_cal)
            h_in = h_in + lanes.factor * response(h_in, v_in)
        signals = last._replace(
            h_cal=h_cal.astype(F32),
            v_cal=v_cal.astype(F32),
            h_in=h_in.astype(F32),
            v_in=v_in.astype(F32),
            position=np.array(lanes.positions, F32),
        )
        state, commands = self._law.update(state, signals)
        self._lanes.write_state(lanes.slots, state)
        shadow = self._law.shadow_command(state) if isinstance(self._law, Shadow) else None
        return signals, commands, shadow

    def _outcome(
        self, lanes: _Lanes, commands: np.ndarray, signals: TokenSignal, scripts: list[_Script]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return H at the applied T and the expected NLL at T = 1, float32 ``[S]``."""
        greedy = np.array([script.greedy for script in scripts], bool)
        x = np.where(greedy, self._model.curves.x_nodes[0], commands)
        h, v, nll = self._model.curves.outcome(lanes.rows, x)
        if lanes.factor is not None:
            h = h + lanes.factor * response(h, v)
        surprisal = nll.astype(F32)
        self._lanes.write_surprisal(lanes.slots, surprisal)
        return np.where(greedy, signals.h_cal, h.astype(F32)), surprisal

    def _price(
        self, plan: Plan, sampled: list[Row], share: list[float], pages: Mapping[int, list[int]]
    ) -> tuple[int, int, int, int]:
        """Return page units read, page units dense, pages scored, and the step's nanoseconds.

        Pages are those that hold tokens; a request may own one more, reserved and not yet read.
        """
        size = self._model.page_tokens
        kept = dense = scored = n_decode = prompt_tokens = squares = 0
        kv_tokens = longest = 0
        for row, part in zip(sampled, share, strict=True):
            if row.n_tokens == 1:
                holes = pages[row.request_id].count(HOLE) if self._evicts else 0
                units = (-(-(row.start + 1) // size) - holes) * self._units_per_page
                kept += round(part * units)
                dense += units
                scored += units if row.coverage < 1.0 else 0
                n_decode += 1
                kv_read = round(part * (row.start + 1 - holes * size))
                kv_tokens += kv_read
                longest = max(longest, kv_read)
        for row in plan.rows:
            if not (row.samples and row.n_tokens == 1):
                prompt_tokens += row.n_tokens
                squares += chunk_squares(row.start, row.n_tokens)
        seconds = self._step_law.step_s(n_decode, kv_tokens, prompt_tokens, squares, longest)
        return kept, dense, scored, max(1, round(1e9 * seconds))


def _ages(row: Row, pages: Mapping[int, list[int]]) -> np.ndarray:
    return np.arange(len(pages[row.request_id]))  # the oldest scores lowest, and goes first
