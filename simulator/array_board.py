"""The waiting requests of an array replica as columns, so that a long queue is ranked at once.

What a waiting request's signals are computed from stands still, but for the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from controllers.core import LoadSignal
from controllers.law_graph import traced
from controllers.preset import Preset
from controllers.serving.lanes import LaneBank
from controllers.serving.limits import EngineLimits
from controllers.serving.load import LoadSensors
from controllers.serving.request import Sequence
from controllers.serving.sensors import NS_PER_S, SLACK_SERVED_S, still_signal
from controllers.steplaw import StepLaw
from simulator.array_parts import fields_read
from simulator.array_ranking import LANES, Clocks, Ranking, are_finite

_FIRST = LANES
ARRIVAL, SINCE_NS, SINCE_STEP, KNOWN = range(4)  # rows of ``_counts``
LEAST = np.float64(-1e300)  # below every finite float32: what a law gave no number
AGE, WAIT, SLACK, WAIT_STEPS, SERVICE = map(
    LoadSignal._fields.index, ("age_s", "wait_s", "slack_s", "wait_steps", "client_service")
)


class Board:
    """Columns of those who wait; who comes is written down when somebody first asks."""

    def __init__(
        self, preset: Preset, limits: EngineLimits, step_law: StepLaw, load: LoadSensors
    ) -> None:
        self._preset, self._load = preset, load
        asked = fields_read(preset.priority)
        self._asks_service = "client_service" in asked
        self._asked = [name in asked for name in LoadSignal._fields]
        self._looks = [i for i, read in enumerate(self._asked) if read]
        self._still = still_signal(
            [LoadSignal._fields[i] for i in self._looks],
            limits=limits,
            step_law=step_law,
            quantum_tokens=preset.quantum_tokens,
        )
        self._fresh: dict[int, Sequence] = {}
        self._sequences: list[Sequence] = []  # by column
        self._column: dict[int, int] = {}
        self._counts = np.zeros((4, _FIRST), np.int64)
        self._ids = np.zeros(_FIRST, np.int64)
        self._slo_s = np.zeros(_FIRST)
        self._served = np.zeros(_FIRST, bool)  # whether its first token is out
        self._rows = [np.zeros(_FIRST, np.float32) for _ in LoadSignal._fields]  # still signals
        stateless = not self._asks_service and _stateless(preset)
        self._graph = traced(preset.priority, LoadSignal) if stateless else None
        self._finite = True  # all still signals so far
        self._ranking = self._make_ranking()

    def add(self, sequence: Sequence) -> None:
        """Take in who begins to wait; its numbers must be up to date."""
        self._fresh[sequence.request.request_id] = sequence

    def remove(self, request_id: int) -> None:
        """Forget who waits no more."""
        if self._fresh.pop(request_id, None) is not None:
            return
        column, last = self._column.pop(request_id), len(self._sequences) - 1
        moved = self._sequences.pop()
        if column != last:
            self._sequences[column] = moved
            self._column[moved.request.request_id] = column
            self._counts[:, column] = self._counts[:, last]
            for table in (self._slo_s, self._served, self._ids):
                table[column] = table[last]
            for i in self._looks:
                self._rows[i][column] = self._rows[i][last]

    def fewest_known(self) -> int:
        """Return the fewest known tokens of anybody who waits."""
        self._write()
        return int(self._counts[KNOWN, : len(self._sequences)].min())

    def by_arrival(self) -> Iterator[Sequence]:
        """Yield who waits by arrival, then id."""
        self._write()
        n = len(self._sequences)
        order = np.lexsort((self._ids[:n], self._counts[ARRIVAL, :n])).tolist()
        return map(self._sequences.copy().__getitem__, order)

    def by_priority(self, bank: LaneBank | None, now_ns: int, step: int) -> Iterator[Sequence]:
        """Yield who waits as the law ranks them in plan ``step``; ties by arrival, then id.

        ``bank`` holds the states of a law that has any.
        """
        self._write()
        if bank is not None:
            ids = [sequence.request.request_id for sequence in self._sequences]
            priority = bank.update(ids, self._signal(now_ns, step))
        elif self._ranking is not None:
            priority = self._ranking.of(len(self._sequences), now_ns, step)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                _, priority = self._preset.priority.update((), self._signal(now_ns, step))
        ranks = priority.astype(np.float64)
        if not math.isfinite(np.vdot(ranks, ranks)):  # squares of float32 fit
            ranks[~np.isfinite(ranks)] = LEAST
        return _ranked(list(self._sequences), ranks)

    def _signal(self, now_ns: int, step: int) -> LoadSignal:
        """Return the signals of all who wait, as ``signal_of`` makes them, where the law looks."""
        n = len(self._sequences)
        asked, counts = self._asked, self._counts[:, :n]
        leaves = self._rows.copy()
        for i in self._looks:
            leaves[i] = leaves[i][:n]
        passed_s = (now_ns - counts[: SINCE_NS + 1]) / NS_PER_S  # nobody came later than now
        leaves[AGE], leaves[WAIT] = passed_s.astype(np.float32)
        if asked[SLACK]:
            slack_s = self._slo_s[:n] - passed_s[ARRIVAL]
            slack_s[self._served[:n]] = SLACK_SERVED_S
            leaves[SLACK] = slack_s.astype(np.float32)
        if asked[WAIT_STEPS]:
            leaves[WAIT_STEPS] = (step - counts[SINCE_STEP]).astype(np.float32)
        if self._asks_service:
            lead = self._load.service.read(self._sequences)
            leaves[SERVICE] = lead.astype(np.float32)
        return LoadSignal(*leaves)

    def _write(self) -> None:
        """Write down who came since the last look."""
        if not self._fresh:
            return
        start = len(self._sequences)
        end = start + len(self._fresh)
        if end > len(self._ids):
            self._grow(end)
        collapse, oracle = self._load.collapse, self._load.oracle
        for column, (request_id, sequence) in enumerate(self._fresh.items(), start):
            counts = self._counts
            counts[ARRIVAL, column] = sequence.arrival_ns
            counts[SINCE_NS, column] = sequence.wait_since_ns
            counts[SINCE_STEP, column] = sequence.wait_since_step
            counts[KNOWN, column] = sequence.known
            self._served[column] = sequence.generated > 0
            self._ids[column] = request_id
            self._slo_s[column] = sequence.request.first_token_slo_s
            tokens = math.nan if oracle is None else oracle[request_id]
            looked_at = self._still(sequence, collapse.read(request_id), tokens)
            if self._finite and not are_finite((*looked_at, sequence.request.first_token_slo_s)):
                self._finite = False
                self._ranking = self._make_ranking()
            for i, value in zip(self._looks, looked_at, strict=True):
                self._rows[i][column] = value
            self._column[request_id] = column
            self._sequences.append(sequence)
        self._fresh.clear()

    def _grow(self, columns: int) -> None:
        """Have at least ``columns``."""
        while columns > len(self._ids):
            self._counts = np.concatenate([self._counts, self._counts], axis=1)
            self._rows = [np.concatenate([row, row]) for row in self._rows]
            self._slo_s = np.concatenate([self._slo_s, self._slo_s])
            self._served = np.concatenate([self._served, self._served])
            self._ids = np.concatenate([self._ids, self._ids])
        self._ranking = self._make_ranking()

    def _make_ranking(self) -> Ranking | None:
        """Return the law as a program over the columns there are, which then holds their signals.

        None where it has no graph, has state, or asks for what is counted elsewhere.
        """
        if self._graph is None:
            return None
        since_ns, since_step = self._counts[: SINCE_NS + 1], self._counts[SINCE_STEP]
        clocks = Clocks(since_ns, since_step, self._slo_s, self._served)
        ranking = Ranking(self._graph, clocks, finite=self._finite)
        for i, name in enumerate(LoadSignal._fields):
            if name in ranking.inputs:
                ranking.inputs[name][:] = self._rows[i]
                self._rows[i] = ranking.inputs[name]
        return ranking


def _stateless(preset: Preset) -> bool:
    signal = LoadSignal(*(np.zeros(0, np.float32) for _ in LoadSignal._fields))
    return preset.priority.init(signal) == ()


def _ranked(sequences: list[Sequence], priority: np.ndarray) -> Iterator[Sequence]:
    """Yield by falling ``priority``, which is overwritten; few are ever asked for."""
    if not sequences:
        return
    best = int(priority.argmax())
    for _ in sequences:
        highest, priority[best] = priority[best], -np.inf
        following = int(priority.argmax())
        if priority[following] != highest:
            yield sequences[best]
        else:  # all that are equal in one go
            priority[best] = highest
            equal = np.flatnonzero(priority == highest)
            priority[equal] = -np.inf
            tied = [sequences[i] for i in equal.tolist()]
            yield from sorted(tied, key=lambda s: (s.arrival_ns, s.request.request_id))
            following = int(priority.argmax())
        if priority[following] == -np.inf:
            return
        best = following
