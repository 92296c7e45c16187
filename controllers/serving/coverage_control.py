"""The coverage law at work: signals of one step in, coverage of the next decode row out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from controllers.compose import Shadow
from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.decisions import Reads
from controllers.serving.lanes import LaneBank
from controllers.serving.request import Request, Sequence


class CoverageControl:
    """Per-request coverage commands of a preset, one step late, and the rules that override them.

    A row is dense (1.0) unless it is a one-token decode row of an enabled request whose context
    has reached ``sparse_min_context``. Greedy requests are controlled like any other.
    """

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self._min_context, self._probe_every = preset.sparse_min_context, preset.probe_every
        self._bank = LaneBank(preset.coverage)
        self._commands: dict[int, float] = {}
        self._shadow: dict[int, float] = {}  # commands of a shadowed law
        self._enabled: tuple[list[bool], np.ndarray] = [], np.zeros(0, np.float32)

    def observe(self, ids: list[int], requests: list[Request], signals: TokenSignal) -> None:
        """Advance the law by one sampled token of each request ``ids``, float32 lanes ``[B]``."""
        # The mask of the signals is the temperature law's, which leaves greedy requests out.
        enabled = [request.enabled for request in requests]
        if enabled != self._enabled[0]:
            self._enabled = enabled, np.array(enabled, dtype=np.float32)
        commands = self._bank.update(ids, signals._replace(enabled=self._enabled[1]))
        self._commands.update(zip(ids, commands.tolist(), strict=True))
        law = self._preset.coverage
        if isinstance(law, Shadow):
            shadow = law.shadow_command(self._bank.lanes(ids))
            self._shadow.update(zip(ids, shadow.tolist(), strict=True))

    def row(self, sequence: Sequence) -> tuple[float, bool]:
        """Return the coverage of the next row and whether a dense probe forced it to 1.

        Probes fall where ``generated + request_id`` is a multiple of ``probe_every``, so requests
        take turns; a row that is dense anyway is not called a probe.
        """
        return self.rows([sequence])[0]

    def rows(self, sequences: Iterable[Sequence]) -> list[tuple[float, bool]]:
        """Return :meth:`row` of each of ``sequences``."""
        get, ruled = self._commands.get, self._ruled
        return [
            ruled(s, get(s.request.request_id, 1.0)) if s.decoding else (1.0, False)
            for s in sequences
        ]

    def reads(self, sequence: Sequence) -> Reads:
        """Say why :meth:`row` asks for what it asks."""
        request, preset = sequence.request, self._preset
        command = self._commands.get(request.request_id, 1.0)
        coverage, probe = self.row(sequence)
        if probe or coverage < 1.0:
            floored = command < request.min_coverage
            return Reads.PROBE if probe else Reads.FLOOR if floored else Reads.SPARSE
        if not sequence.decoding or not request.enabled:
            return Reads.OFF if sequence.decoding else Reads.PROMPT
        if 0.0 < max(command, request.min_coverage) < 1.0:
            assert sequence.known < preset.sparse_min_context, "dense without a reason"
            return Reads.SHORT
        return Reads.FLOOR if command < 1.0 <= request.min_coverage else Reads.ASKED

    def twin(self, sequence: Sequence) -> float:
        """Return the coverage of the next token's row, had the request never been preempted."""
        command = self._commands.get(sequence.request.request_id, 1.0)
        return self._ruled(sequence, command)[0] if sequence.generated > 0 else 1.0

    def shadow(self, sequences: list[Sequence]) -> dict[int, float]:
        """Return what a shadowed law would set for the next rows, by request; empty without one."""
        if not isinstance(self._preset.coverage, Shadow):
            return {}
        commands = [self._shadow.get(s.request.request_id, 1.0) for s in sequences]
        return {
            s.request.request_id: self._ruled(s, command)[0] if s.decoding else 1.0
            for s, command in zip(sequences, commands, strict=True)
        }

    def _ruled(self, sequence: Sequence, command: float) -> tuple[float, bool]:
        """Return coverage and probe of a decode row whose law says ``command``."""
        request = sequence.request
        if request.min_coverage > command:
            command = request.min_coverage
        if not 0.0 < command < 1.0 or not request.enabled:
            return 1.0, False
        if request.prompt_tokens + sequence.generated < self._min_context:
            return 1.0, False
        every = self._probe_every
        if every > 0 and (sequence.generated + request.request_id) % every == 0:
            return 1.0, True
        return command, False

    def forget(self, request_id: int) -> None:
        """Drop a finished request; unknown ones are ignored."""
        self._commands.pop(request_id, None)
        self._shadow.pop(request_id, None)
        self._bank.release(request_id)
