"""The sensors of the macro law in one place: what the loop feeds and the priority law reads."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Seq

import numpy as np

from controllers.core import LoadSignal
from controllers.presets import Preset
from controllers.serving.admission import Oracle
from controllers.serving.lanes import LaneBank
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Sequence
from controllers.serving.sensors import CollapseSensor, load_signal, prefill_row_s
from controllers.serving.service import ServiceCounters
from controllers.steplaw import StepLaw


class LoadSensors:
    """Entropy collapse, service per client, modelled seconds of service, and the law they feed."""

    def __init__(
        self, preset: Preset, limits: EngineLimits, step_law: StepLaw, oracle: Oracle | None
    ) -> None:
        self.collapse = CollapseSensor(preset.collapse_prior_nats, preset.collapse_prior_weight)
        self.service = ServiceCounters()
        self.oracle = oracle
        self.bank = LaneBank(preset.priority)
        self.asked: Collection[str] = LoadSignal._fields  # what the law looks at
        self._quantum_tokens = preset.quantum_tokens
        self._limits = limits
        self._step_law = step_law
        self._page_tokens = limits.page_tokens
        self._kv_token_s = step_law.per_kv_token_s
        self._decode_s = step_law.base_s + step_law.per_decode_s  # of a decode row, plus its KV

    def serve(self, sequence: Sequence, n_tokens: int) -> None:
        """Add one row to the service a sequence attained; call it before ``computed`` moves.

        A row counts as a step of its own that reads all the KV it holds, so that attained service
        depends neither on the batch nor on coverage.
        """
        if sequence.decoding:
            held = sequence.computed - sequence.holes * self._page_tokens
            sequence.served_s += self._decode_s + self._kv_token_s * held
        else:
            sequence.served_s += prefill_row_s(self._step_law, sequence.computed, n_tokens)

    def serve_decodes(self, sequences: Seq[Sequence]) -> None:
        """Add one one-token decode row to each of ``sequences``, as :meth:`serve` does."""
        decode_s, kv_token_s, page_tokens = self._decode_s, self._kv_token_s, self._page_tokens
        for sequence in sequences:
            held = sequence.computed - sequence.holes * page_tokens
            sequence.served_s += decode_s + kv_token_s * held

    def leave(self, sequence: Sequence) -> None:
        """Forget a finished request."""
        self.collapse.forget(sequence.request.request_id)
        self.bank.release(sequence.request.request_id)
        self.service.leave(sequence)

    def priorities(self, sequences: Seq[Sequence], now_ns: int, step: int) -> list[float]:
        """Return the law's priorities for the plan ``step``; what is not finite comes last."""
        signal = self.read(sequences, now_ns, step)
        ids = [sequence.request.request_id for sequence in sequences]
        found = self.bank.update(ids, signal)
        return np.where(np.isfinite(found), found, -np.inf).tolist()

    def read(self, sequences: Seq[Sequence], now_ns: int, step: int) -> LoadSignal:
        """Return the signals of ``sequences``, float32 ``[B]``, for the plan ``step``."""
        return load_signal(
            sequences,
            now_ns,
            limits=self._limits,
            step_law=self._step_law,
            quantum_tokens=self._quantum_tokens,
            collapse=self.collapse,
            step=step,
            service=self.service,
            oracle=self.oracle,
            asked=self.asked,
        )
