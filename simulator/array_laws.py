"""Laws called at every step of an array replica, for all residents that sample at once.

In the place of trajectories scanned ahead: what a step's laws do is known when the step is planned
and not before. The bits are those of ``TraceExecutor``, which is the definition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controllers.core import TokenSignal
from controllers.coverage import FixedCoverage
from controllers.law_steps import LawSteps
from controllers.preset import Preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.lanes import LaneBank
from simulator.array_coverage import Kept, LaneCoverage
from simulator.array_life import Life
from simulator.array_slots import Slots, unwritten
from simulator.array_timeline import KV, READ, SCORED
from simulator.model import TraceModel
from simulator.recordings import Recordings
from simulator.residual import Residual, response
from simulator.scan import Trajectory
from simulator.scan_lanes import F32, applied

Found = tuple[np.ndarray, np.ndarray, np.ndarray]


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
        temperature, coverage = applied(preset.temperature), applied(preset.coverage)
        self._dense = isinstance(coverage, FixedCoverage) and coverage.coverage >= 1.0
        self._table = LaneTable(temperature, np.zeros(1, F32))
        self._steps = LawSteps(temperature)
        self._bank = LaneBank(coverage)
        self._coverage = LaneCoverage(model, residual, preset)
        self._slots = Slots(max_context + 1)
        units = -(-np.arange(max_context + 1) // model.page_tokens)
        # KV tokens and page units that a dense row reads, by length of context.
        self._reads = np.stack([np.arange(max_context + 1), units * model.layers * model.kv_heads])
        self._reads = self._reads.astype(np.float64)
        self._ones = np.ones(max_context + 1)
        self._none = np.zeros(max_context + 1)
        self._made: dict[int, tuple[np.ndarray, Trajectory, int]] = {}  # and tokens settled
        self._slot_of: dict[int, int] = {}
        # The lanes of the step, ``[B]``.
        self._ids: list[int] = []
        self._lanes = np.zeros(0, np.intp)  # their slots
        self._signal = TokenSignal(*(np.zeros(0, F32) for _ in TokenSignal._fields))
        self._ahead: Found | None = None  # what the next step measures at its x_in
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
            matrix[:, start:stop] = self._slots.said(self._slot_of[request_id], start, stop)
            self._made[request_id] = matrix, trajectory, stop

    def disable(self, request_id: int, first_token: int) -> Trajectory:
        """Switch a request's control off from its next token on, which is ``first_token``."""
        del first_token  # nothing beyond it has been computed
        slot = self._slot_of.get(request_id)
        if slot is not None:
            self._put_back()
            self._table.disable(request_id)
            self._slots.enabled[slot] = 0.0
            self._slots.first[slot] = self._coverage.first_sparse(0, enabled=False)
        return self.of(request_id)

    def forget(self, request_id: int) -> None:
        """Drop a request that is over; one that is not known is left alone."""
        if self._slot_of.pop(request_id, None) is not None:
            self._put_back()
            self._table.release(request_id)
            self._bank.release(request_id)
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
        if not ids:
            self._kept_tokens = self._none[:0]
            return
        slots, coverage, position = self._slots, self._coverage, self._position
        at, rows = self._at, self._rows
        kept = None if self._dense else coverage.read(rows, slots.normals.take(at), position)
        factor = None if kept is None else kept.factor
        signals = self._measure(rows, factor)
        commands = self._steps.step(signals)
        h_applied, surprisal = self._outcome(rows, commands, factor, signals)
        slots.say(
            at,
            commands,
            signals.h_cal,
            None if kept is None else kept.coverage,
            h_applied,
            surprisal,
        )
        self._read(kept, len(joined), entering, cells)
        if not self._dense:
            seen = TokenSignal(*signals[:8], self._enabled, signals.position)
            coverage.hold(self._bank.update(ids, seen))
        self._surprisal, self._rows = surprisal, self._both_rows[len(ids) :].copy()
        at += 1
        position += 1

    def _measure(self, rows: np.ndarray, factor: np.ndarray | None) -> TokenSignal:
        """Return the signals of the tokens ``rows`` answer for."""
        model, ahead = self._model, self._ahead
        h_cal, v_cal = model.h_cal.take(rows), model.v_cal.take(rows)
        if ahead is None:
            found = model.curves.entropy(rows, self._steps.x_in())
            ahead = (*found, response(*found))
        h_in, v_in, gives = ahead
        if factor is not None:
            h_cal = h_cal + factor * response(h_cal, v_cal)
            h_in = h_in + factor * gives
        fixed = self._signal
        return TokenSignal(
            h_cal.astype(F32),
            v_cal.astype(F32),
            h_in.astype(F32),
            v_in.astype(F32),
            self._surprisal,
            *fixed[5:9],
            self._position.astype(F32),
        )

    def _outcome(
        self,
        rows: np.ndarray,
        commands: np.ndarray,
        factor: np.ndarray | None,
        signals: TokenSignal,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return H at the applied T and the expected NLL at T = 1, float32 ``[B]``.

        What the next token will be measured at is read along, for that is one look-up.
        """
        curves, n, greedy = self._model.curves, len(rows), self._greedy
        asked, both = self._both_x, self._both_rows
        asked[:n] = commands if greedy is None else np.where(greedy, curves.x_nodes[0], commands)
        asked[n:] = self._steps.x_in()
        both[:n] = rows
        both[n:] = self._slots.rows.take(self._at + 1)
        self._ahead = None
        if curves.holds(asked):
            h, v, nll = curves.read_all(both, asked)
            gives = response(h, v)
            self._ahead = h[n:], v[n:], gives[n:]
        else:  # the next token may never come: let it raise if it does
            h, v, nll = curves.outcome(rows, asked[:n])
            gives = response(h, v)
        h = h[:n] if factor is None else h[:n] + factor * gives[:n]
        h_applied, surprisal = h.astype(F32), nll[:n].astype(F32)
        if greedy is not None:
            h_applied = np.where(greedy, signals.h_cal, h_applied)
        return h_applied, surprisal

    def _read(
        self, kept: Kept | None, in_runs: int, entering: Sequence[Life], cells: np.ndarray
    ) -> None:
        """Say what the rows of the step read."""
        context = self._prompt + self._position
        if self._dense:  # as every block says already
            self._kept_tokens = context[:in_runs]
            return
        reads = self._reads.take(context, axis=1)
        scored = self._none[: len(context)]
        if kept is not None:
            scored = reads[1] * kept.sparse
            reads *= kept.share
            np.rint(reads, out=reads)
        tokens, read = reads
        self._kept_tokens = tokens[:in_runs]
        ones = self._ones[:in_runs]  # sums of whole numbers are exact in any order
        for row, values in ((KV, tokens), (READ, read), (SCORED, scored)):
            cells[row] += int(values[:in_runs].dot(ones))
        for lane, life in enumerate(entering, in_runs):
            if life.block is not None:
                token = int(self._position[lane])
                life.block[KV, token] = tokens[lane]
                life.block[READ, token] = read[lane]
                life.block[SCORED, token] = scored[lane]
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
        state, self._signal = self._table.read(lanes)
        self._steps.begin(state, self._signal)
        self._position, self._prompt = slots.position[lanes], slots.prompt[lanes]
        self._at = self._position + lanes * slots.stride
        self._surprisal, self._rows = self._signal.surprisal, slots.rows.take(self._at)
        self._both_rows, self._both_x = np.zeros(2 * len(ids), np.intp), np.zeros(2 * len(ids))
        self._greedy = slots.greedy[lanes] if slots.greedy[lanes].any() else None
        self._enabled = slots.enabled[lanes]
        self._coverage.take_up(
            np.array(ids),
            slots.first[lanes],
            self._position,
            slots.minimum[lanes],
            slots.held[lanes],
        )

    def _put_back(self) -> None:
        """Leave the lanes of the last step where they can be taken up again."""
        if not self._ids:
            return
        lanes = self._lanes
        self._table.write_state(lanes, self._steps.state())
        self._table.write_surprisal(lanes, self._surprisal)
        self._slots.position[lanes] = self._position
        self._slots.held[lanes] = self._coverage.held
        self._ids, self._ahead = [], None

    def _enter(self, life: Life) -> None:
        """Give a life that samples its first token a slot."""
        request = life.sequence.request
        recorded = self._recordings.of(life.request_id)
        slot = self._slot_of[life.request_id] = self._table.add(request)
        first = self._coverage.first_sparse(request.prompt_tokens, enabled=request.enabled)
        self._slots.enter(slot, request, recorded, first)
        self.of(life.request_id)

    def _make(self, request_id: int) -> Trajectory:
        matrix, made = unwritten(self._recordings.of(request_id), dense=self._dense)
        self._made[request_id] = matrix, made, 0
        return made
