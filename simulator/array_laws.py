"""Laws called at every step of an array replica, for all residents that sample at once.

In the place of trajectories scanned ahead: what a step's laws do is known when the step is planned
and not before. The bits are those of ``TraceExecutor``, which is the definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from simulator.array_coverage import Kept, LaneCoverage
from simulator.array_laws_ahead import Ahead, Recorded
from simulator.array_laws_lanes import law_lanes
from simulator.array_life import Life
from simulator.array_slots import (
    COMMAND,
    COVERAGE,
    FIRST,
    H_APPLIED,
    H_CAL,
    HELD,
    MINIMUM,
    NUMBER,
    POSITION,
    SURPRISAL,
    Slots,
    unwritten,
)
from simulator.array_timeline import DENSE, KV, READ, SCORED
from simulator.model import TraceModel
from simulator.recordings import Recordings
from simulator.residual import Residual, response
from simulator.scan import Trajectory
from simulator.scan_lanes import F32, applied

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
STEPS = 16  # gathered at once


class CalledLaws:
    """The temperature and coverage laws of one server, and all that they have said so far.

    A request has a slot from its first token to its end, whether it is resident or not; the lanes
    of a step are the slots of those who sample in it.
    """

    def __init__(
        self,
        model: TraceModel,
        residual: Residual,
        preset: Preset,
        recordings: Recordings,
        *,
        max_context: int,
    ) -> None:
        """Serve requests whose recorded rows ``recordings`` holds."""
        self._model, self._recordings = model, recordings
        coverage = applied(preset.coverage)
        self._dense = isinstance(coverage, FixedCoverage) and coverage.coverage >= 1.0
        self._recorded = Recorded(model, max_context=max_context, dense=self._dense)
        recorded = np.isfinite(model.h_cal).all() and np.isfinite(model.v_cal).all()
        finite = frozenset({"h_cal"} if recorded else ())  # pruning moves it by no more than it is
        self._laws = law_lanes(applied(preset.temperature), coverage, finite)
        self._coverage = LaneCoverage(model, residual, preset)
        self._slots = Slots(max_context + 2)
        self._ones, self._none = np.ones(max_context + 1), np.zeros(max_context + 1)
        self._made: dict[int, tuple[np.ndarray, Trajectory, int]] = {}  # and tokens settled
        self._slot_of: dict[int, int] = {}
        # The lanes of the step, ``[B]``.
        self._ids: list[int] = []
        self._lanes = np.zeros(0, np.intp)  # their slots
        self._ahead = Ahead(self._recorded, self._slots, self._lanes, STEPS)
        self._step = 0  # of those looked ahead to
        self._surprisal = np.zeros(0, F32)
        self._greedy: np.ndarray | None = None  # None: nobody is
        self._asked = np.zeros(0)  # ln T of this step and of the next, [2 * B]
        self._next: Found | None = None  # what the next step measures at its x_in
        rows = np.zeros((SCORED + 1, 0))  # KV tokens, units read, 0, units scored
        self._read_rows = rows, rows[:DENSE], rows[SCORED]
        self._kept_tokens = np.zeros(0)

    @property
    def longest(self) -> int:
        """The most KV tokens that a resident in a run reads in this step."""
        return int(self._kept_tokens.max(initial=0.0))

    def of(self, request_id: int) -> Trajectory:
        """Return the trajectory of a request, which is filled as it is served."""
        found = self._made.get(request_id)
        return self._make(request_id) if found is None else found[1]

    def settle(self, request_id: int, stop: int) -> None:
        """Fill the trajectory in up to token ``stop``, which the laws have passed."""
        matrix, trajectory, start = self._made[request_id]
        if stop > start:
            self._ahead.write(self._step)
            matrix[:, start:stop] = self._slots.said(self._slot_of[request_id], start, stop)
            self._made[request_id] = matrix, trajectory, stop

    def disable(self, request_id: int, first_token: int) -> Trajectory:
        """Switch a request's control off from its next token on, which is ``first_token``."""
        del first_token  # nothing beyond it has been computed
        slot = self._slot_of.get(request_id)
        if slot is not None:
            self._put_back()
            self._laws.disable(request_id)
            self._slots.whole[FIRST, slot] = self._coverage.first_sparse(0, enabled=False)
        return self.of(request_id)

    def forget(self, request_id: int) -> None:
        """Drop a request that is over; one that is not known is left alone."""
        if self._slot_of.pop(request_id, None) is not None:
            self._put_back()
            self._laws.release(request_id)
        self._made.pop(request_id, None)
        self._recordings.forget(request_id)

    def advance(
        self, joined: Mapping[int, Life], entering: Sequence[Life], cells: np.ndarray
    ) -> None:
        """Call the laws for one token of each life in a run and of those that begin one.

        ``cells`` int64 ``[11]`` is the step's column of the timeline: what residents in runs read
        is added to it; what a decode row that begins a run reads goes into its block.
        """
        ids = list(joined)
        if entering:
            ids += [life.request_id for life in entering]
        if ids != self._ids:
            self._take_up(ids, entering)
        elif self._step == STEPS and ids:
            self._look_on()
        if not ids:
            self._kept_tokens = self._none[:0]
            return
        ahead, step, coverage = self._ahead, self._step, self._coverage
        kept = None
        if not self._dense:
            kept = coverage.read(ahead.entries[step], ahead.normals[step], ahead.position[step])
        said = ahead.said[:, step]
        self._call(kept, said)
        self._outcome(kept, said)
        said[COVERAGE] = 1.0 if kept is None else kept.coverage
        self._read(kept, len(joined), entering, cells)
        if not self._dense:
            coverage.hold(self._laws.coverage)
        self._surprisal = said[SURPRISAL]
        self._step = step + 1

    def _call(self, kept: Kept | None, said: np.ndarray) -> None:
        """Measure the tokens of this step and call the laws."""
        ahead, step, laws = self._ahead, self._step, self._laws
        h_cal = ahead.h_cal[step]
        if self._next is None:
            h, v = self._model.curves.entropy(self._rows(1), laws.x_in())
            self._next = h, v, response(h, v)
        h_in, v_in, gives = self._next
        if kept is not None:
            factor = kept.factor
            h_cal = h_cal + factor * ahead.gives[step]
            h_in = h_in + factor * gives
        laws.step((h_cal, ahead.v_cal[step], h_in, v_in, self._surprisal, ahead.position[step]))
        said[H_CAL], said[COMMAND] = h_cal, laws.command

    def _outcome(self, kept: Kept | None, said: np.ndarray) -> None:
        """Note H at the applied T and the expected NLL at T = 1.

        What the next token will be measured at is read along, for that is one look-up.
        """
        curves, n, greedy = self._model.curves, len(self._ids), self._greedy
        asked, command = self._asked, self._laws.command
        asked[:n] = command if greedy is None else np.where(greedy, curves.x_nodes[0], command)
        asked[n:] = self._laws.x_in()
        self._next = None
        if curves.holds(asked):
            h, v, nll = curves.read_all(self._rows(2), asked)
            gives = response(h, v)
            self._next = h[n:], v[n:], gives[n:]
        else:  # the next token may never come: let it raise if it does
            h, v, nll = curves.outcome(self._rows(1), asked[:n])
            gives = response(h, v)
        said[H_APPLIED] = h[:n] if kept is None else h[:n] + kept.factor * gives[:n]
        said[SURPRISAL] = nll[:n]
        if greedy is not None:
            said[H_APPLIED, greedy] = said[H_CAL, greedy]

    def _rows(self, steps: int) -> np.ndarray:
        """Return the recorded rows of this step and those after it, ``[steps * B]``."""
        n = len(self._ids)
        return self._ahead.rows[self._step * n : (self._step + steps) * n]

    def _read(
        self, kept: Kept | None, in_runs: int, entering: Sequence[Life], cells: np.ndarray
    ) -> None:
        """Say what the rows of the step read."""
        ahead, step = self._ahead, self._step
        if self._dense:  # as every block says already
            self._kept_tokens = ahead.context[step, :in_runs]
            return
        rows, pruned, scored = self._read_rows
        reads = ahead.reads[:, step]
        if kept is None:
            pruned[:], scored[:] = reads, 0.0
        else:
            np.multiply(reads[1], kept.sparse, scored)
            np.rint(np.multiply(reads, kept.share, pruned), pruned)
        self._kept_tokens = rows[KV, :in_runs]
        there = cells[: SCORED + 1]
        if in_runs == rows.shape[1]:  # sums of whole numbers are exact in any order
            there += rows.dot(self._ones[:in_runs]).astype(np.int64)
            return
        there += rows[:, :in_runs].dot(self._ones[:in_runs]).astype(np.int64)
        for lane, life in enumerate(entering, in_runs):
            if life.block is not None:
                token = int(ahead.position[step, lane])
                for row in (KV, READ, SCORED):
                    life.block[row, token] = rows[row, lane]
                covered = 1.0 if kept is None else kept.coverage[lane]
                self.of(life.request_id).coverage[token] = covered

    def _take_up(self, ids: list[int], entering: Sequence[Life]) -> None:
        """Go on with the lanes of other requests."""
        self._put_back()
        for life in entering:
            if life.request_id not in self._slot_of:
                self._enter(life)
        self._ids = ids
        if not ids:
            return
        slots = self._slots
        lanes = self._lanes = np.array([self._slot_of[i] for i in ids], np.intp)
        self._laws.take_up(ids, lanes)
        self._asked = np.zeros(2 * len(ids))
        rows = np.zeros((SCORED + 1, len(ids)))
        self._read_rows = rows, rows[:DENSE], rows[SCORED]
        greedy = slots.greedy.take(lanes)
        self._greedy = greedy if greedy.any() else None
        self._look()
        whole, real = slots.whole.take(lanes, axis=1), slots.real.take(lanes, axis=1)
        self._coverage.take_up(
            whole[NUMBER], whole[FIRST], whole[POSITION], real[MINIMUM], real[HELD]
        )

    def _put_back(self) -> None:
        """Leave the lanes of the last step where they can be taken up again."""
        if not self._ids:
            return
        self._laws.put_back()
        self._write_down()
        self._slots.real[HELD, self._lanes] = self._coverage.held
        self._ids, self._next = [], None

    def _look_on(self) -> None:
        """Look further ahead; the lanes go on."""
        self._write_down()
        self._look()

    def _look(self) -> None:
        self._ahead, self._step = Ahead(self._recorded, self._slots, self._lanes, STEPS), 0
        self._surprisal = self._ahead.surprisal

    def _write_down(self) -> None:
        self._ahead.write(self._step)
        self._slots.whole[POSITION, self._lanes] += self._step

    def _enter(self, life: Life) -> None:
        """Give a life that samples its first token a slot."""
        request = life.sequence.request
        recorded = self._recordings.of(life.request_id)
        slot = self._slot_of[life.request_id] = self._laws.enter(request)
        first = self._coverage.first_sparse(request.prompt_tokens, enabled=request.enabled)
        self._slots.enter(slot, request, recorded, first)
        self.of(life.request_id)

    def _make(self, request_id: int) -> Trajectory:
        matrix, made = unwritten(self._recordings.of(request_id), dense=self._dense)
        self._made[request_id] = matrix, made, 0
        return made
