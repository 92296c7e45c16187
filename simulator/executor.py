"""The simulated executor: a recorded trace answers for the model, a step law for the clock.

It runs the preset's temperature law on numpy float32 lanes, exactly as the live executor does. It
alone knows a request's true output length (the oracle boundary); the loop learns it by "stop".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from operator import add

import numpy as np

from controllers.compose import Shadow
from controllers.core import TokenSignal
from controllers.law_steps import LawSteps
from controllers.presets import Preset
from controllers.serving import eviction
from controllers.serving.lane_table import LaneTable
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator.model import TraceModel
from simulator.residual import Residual, counter_normal, response
from simulator.scripts import write_scripts
from simulator.step_price import NOTHING, StepPrice
from simulator.stretch import Moment, Script, Stretch
from simulator.stretch_shares import Pruning

F32 = np.float32


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
        self._residual = residual
        self._seed = seed
        self._twin_coverage = twin_coverage
        self.reads_pages = preset.kv_budget_pages is not None  # else lengths say how many
        self._lanes = LaneTable(self._law, np.zeros(1, F32))
        self._steps = LawSteps(self._law)  # of the stretch under way
        self._scripts: dict[int, Script] = {}
        self._stretch: Stretch | None = None
        self._price = StepPrice(model, step_law)
        self._prune = Pruning(model.shares, residual)
        self.clamped_rows = 0  # rows whose coverage lay below the lowest recorded one

    def add(self, request: Request, trace_index: int, output_tokens: int | None = None) -> None:
        """Let request ``trace_index`` of the recording answer for ``request``.

        ``output_tokens`` is the true length, by default the recorded one. More than recorded is
        filled by a block bootstrap (``write_scripts``).
        """
        made = write_scripts(
            self._model, [request], [trace_index], [output_tokens], seed=self._seed
        )
        ids = np.full(len(made.rows), request.request_id)
        self._scripts[request.request_id] = Script(
            rows=made.rows,
            normals=counter_normal(self._residual.seed, ids, np.arange(len(made.rows))),
            prompt_tokens=request.prompt_tokens,
            greedy=request.greedy,
            stops=bool(made.stops[0]),
        )
        self._lanes.add(request)

    def release(self, request_id: int) -> None:
        """Forget a finished or cancelled request; one that is unknown is left alone."""
        self._end()  # while its lane is its own
        self._scripts.pop(request_id, None)
        self._lanes.release(request_id)

    def disable(self, request_id: int) -> None:
        """Return a request to its own temperature from the next step on."""
        self._end()
        self._lanes.disable(request_id)

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run one step; page counts follow from lengths, less what a table has lost to eviction.

        A recording knows no page by its mass, so eviction takes the oldest pages that may go, and
        what it does to entropies is not modelled.
        ``h_applied`` is H at the command; for a greedy row, whose argmax has none, H at T_cal.
        ``surprisal`` is the expected NLL at T = 1 of a token sampled at the command, for the
        recorded token is one draw at one temperature; greedy rows read it at the lowest node.
        """
        ids = plan.sampled
        if not ids:
            return self._prefill(plan)
        alone = len(ids) == len(plan.rows)
        sampled = plan.rows if alone else tuple([row for row in plan.rows if row.samples])
        _, starts, counts, _, coverage, _, _, _ = zip(*sampled, strict=True)
        ends = list(map(add, starts, counts))
        stretch = self._stretch
        if stretch is None or not stretch.takes(ids, ends):
            stretch = self._begin(ids, ends)
        now = stretch.now
        steady = not self.reads_pages and max(counts) == 1
        if not steady:
            coverage = self._coverage(sampled, now)
        share = factor = None
        if min(coverage) < 1.0:
            share, factor, below = stretch.prune(coverage)
            self.clamped_rows += below
        signals, commands, shadow = self._control(stretch, now, factor)
        h_applied, surprisal = self._outcome(stretch, now, signals, commands, factor)
        if steady:
            read = self._price.alike(coverage, share, now.sizes, stretch.totals)
        else:
            read = self._price.each(sampled, share, pages if self.reads_pages else None)
        tokens = self._model.tokens
        found = Result(
            step=plan.step,
            tokens=tuple([tokens[row] for row in now.rows.tolist()]),
            finished=stretch.finished(),
            signals=signals,
            commands=commands,
            h_applied=h_applied,
            surprisal=surprisal,
            page_units_read=read.kept,
            page_units_dense=read.dense,
            pages_scored=read.scored,
            duration_ns=self._price.duration_ns(read, plan.rows),
            shadow=shadow,
            evicted=self._given_up(sampled, pages) if self.reads_pages else {},
        )
        stretch.step()
        return found

    def _prefill(self, plan: Plan) -> Result:
        """Run a step that samples nothing, so that no law is asked."""
        none = np.zeros(0, F32)
        return Result(
            step=plan.step,
            tokens=(),
            finished={},
            signals=TokenSignal(*(none for _ in TokenSignal._fields)),
            commands=none,
            h_applied=none,
            surprisal=none,
            page_units_read=0,
            page_units_dense=0,
            duration_ns=self._price.duration_ns(NOTHING, plan.rows),
            shadow=none if isinstance(self._law, Shadow) else None,
        )

    def _begin(self, request_ids: tuple[int, ...], ends: list[int]) -> Stretch:
        self._end()
        slots = self._lanes.slots(request_ids)
        scripts = [self._scripts[request_id] for request_id in request_ids]
        state, signal = self._lanes.read(slots)
        self._stretch = Stretch(self._model, self._prune, request_ids, scripts, ends, slots, signal)
        self._steps.begin(state, signal)
        return self._stretch

    def _end(self) -> None:
        """Give the states of the stretch under way back to the table of lanes."""
        stretch, self._stretch = self._stretch, None
        if stretch is not None:
            self._lanes.write_state(stretch.slots, self._steps.state())
            self._lanes.write_surprisal(stretch.slots, stretch.signal.surprisal)

    def _coverage(self, sampled: Seq[Row], now: Moment) -> tuple[float, ...]:
        """Return what prunes each sampled row, as if none had ever been preempted."""
        return tuple(
            self._twin_coverage(row.request_id) if t > 0 and row.n_tokens > 1 else row.coverage
            for row, t in zip(sampled, now.positions.tolist(), strict=True)
        )

    def _control(
        self, stretch: Stretch, now: Moment, factor: np.ndarray | None
    ) -> tuple[TokenSignal, np.ndarray, np.ndarray | None]:
        """Measure at T_cal and at the law's x_in, then let the law set ln T."""
        h_cal, ahead = now.h_cal, stretch.ahead
        if ahead is None:
            found = self._model.curves.entropy(now.rows, self._steps.x_in())
            ahead = (*found, response(*found))
        h_in, v_in, gives = ahead
        if factor is not None:
            h_cal = h_cal + factor * now.response
            h_in = h_in + factor * gives
        target, x_user, x_cap, enabled = stretch.signal[5:9]
        signals = TokenSignal(
            h_cal.astype(F32),
            now.v_cal,
            h_in.astype(F32),
            v_in.astype(F32),
            stretch.signal.surprisal,
            target,
            x_user,
            x_cap,
            enabled,
            now.positions,
        )
        commands, law = self._steps.step(signals), self._law
        shadow = None
        if isinstance(law, Shadow):
            shadow = law.shadow_command(self._steps.state()).copy()
        return signals, commands, shadow

    def _outcome(
        self,
        stretch: Stretch,
        now: Moment,
        signals: TokenSignal,
        commands: np.ndarray,
        factor: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return H at the applied T and the expected NLL at T = 1, float32 ``[S]``.

        What the next step will measure at its x_in is read along, for that is one look-up.
        """
        curves, greedy, n = self._model.curves, stretch.greedy, len(commands)
        x = np.where(greedy, curves.x_nodes[0], commands) if stretch.any_greedy else commands
        h, gives, nll = self._looked_up(stretch, now, x)
        h = h[:n]
        if factor is not None:
            h = h + factor * gives[:n]
        surprisal = nll[:n].astype(F32)
        stretch.signal = stretch.signal._replace(surprisal=surprisal)
        h_applied = h.astype(F32)
        return (
            np.where(greedy, signals.h_cal, h_applied) if stretch.any_greedy else h_applied,
            surprisal,
        )

    def _looked_up(
        self, stretch: Stretch, now: Moment, x: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return H, its response and NLL at ln T ``x`` ``[S]``, and then those of the next x_in."""
        curves, following = self._model.curves, stretch.next_rows
        stretch.ahead = None
        if following is None:
            return self._at(now.rows, x)
        asked = np.concatenate((x, self._steps.x_in()), dtype=np.float64)
        if not curves.holds(asked):  # the next step may never come: let it raise if it does
            return self._at(now.rows, x)
        n = len(x)
        h, v, nll = curves.read_all(np.concatenate((now.rows, following)), asked)
        gives = response(h, v)
        stretch.ahead = h[n:], v[n:], gives[n:]
        return h, gives, nll

    def _at(self, rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        h, v, nll = self._model.curves.outcome(rows, x)
        return h, response(h, v), nll

    def _given_up(
        self, sampled: Seq[Row], pages: Mapping[int, list[int]]
    ) -> dict[int, tuple[int, ...]]:
        return {
            row.request_id: eviction.choose(_ages(row, pages), pages[row.request_id], row)
            for row in sampled
            if row.evict
        }


def _ages(row: Row, pages: Mapping[int, list[int]]) -> np.ndarray:
    return np.arange(len(pages[row.request_id]))  # the oldest scores lowest, and goes first
