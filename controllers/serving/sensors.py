"""Host sensors of the macro law: entropy collapse per request, and what the rest would cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np

from controllers.core import LoadSignal, require
from controllers.ops import Array
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Sequence
from controllers.serving.service import ServiceCounters
from controllers.steplaw import StepLaw, chunk_squares

NS_PER_S = 1_000_000_000
SLACK_SERVED_S = 1.0e6  # slack once the first token is out: no deadline is left
ALL = LoadSignal._fields


class CollapseSensor:
    """Shrunk mean of ``max(0, H_{t-1} - H_t)`` at T_cal, nats per token, per request.

    ``(sum + prior*weight) / (n + weight)`` over the n differences seen; at n = 0 the prior. A
    waiting request's value stands still, which is why a law that ranks by it alone starves.
    """

    def __init__(self, prior_nats: float, prior_weight: float) -> None:
        require(
            math.isfinite(prior_nats) and prior_nats >= 0.0,
            "collapse_prior_nats must be finite and >= 0",
            collapse_prior_nats=prior_nats,
        )
        require(
            math.isfinite(prior_weight) and prior_weight >= 0.0,
            "collapse_prior_weight must be finite and >= 0",
            collapse_prior_weight=prior_weight,
        )
        self._prior = prior_nats
        self._weight = prior_weight
        self._seen: dict[int, tuple[float, float, int]] = {}  # last H, sum of collapses, count

    def observe(self, request_id: int, h_cal: float) -> None:
        """Take the entropy (nats, at T_cal) of one sampled row; non-finite ones are left out."""
        self.observe_rows((request_id,), (h_cal,))

    def observe_rows(self, request_ids: Seq[int], h_cal: Seq[float]) -> None:
        """Take the entropies of one step: :meth:`observe` for each, in order."""
        seen, fresh = self._seen, (math.nan, 0.0, -1)
        for request_id, h in zip(request_ids, h_cal, strict=True):
            if h - h == 0.0:  # finite
                last, total, count = seen.get(request_id, fresh)
                fall = last - h
                seen[request_id] = (h, total + fall if fall > 0.0 else total, count + 1)

    def read(self, request_id: int) -> float:
        """Return the shrunk mean, nats, >= 0."""
        _, total, count = self._seen.get(request_id, (0.0, 0.0, 0))
        if count == 0:
            return self._prior
        return (total + self._prior * self._weight) / (count + self._weight)

    def forget(self, request_id: int) -> None:
        """Drop a finished request; unknown ones are ignored."""
        self._seen.pop(request_id, None)


class LoadTable(NamedTuple):
    """What the signals of sequences are computed from; a struct of arrays, ``[B]`` each."""

    counts: np.ndarray  # int64 [11, B], rows in the order of ``counts_of``
    slo_s: np.ndarray  # float64
    served_s: np.ndarray  # float64
    collapse_nats: np.ndarray  # float64
    client_service: np.ndarray  # float64
    oracle_tokens: np.ndarray  # float64, true output tokens in all; NaN without an oracle

    @classmethod
    def of(
        cls,
        sequences: Seq[Sequence],
        *,
        collapse: CollapseSensor,
        service: ServiceCounters | None = None,
        oracle: Mapping[int, int] | None = None,
        asked: Collection[str] = ALL,
    ) -> LoadTable:
        """Read ``sequences``; true output lengths come from ``oracle`` alone.

        Only what the signals named in ``asked`` are computed from is read, the rest is 0.
        """
        ids, rest = [s.request.request_id for s in sequences], np.zeros(len(sequences))
        counts = np.array([counts_of(s) for s in sequences], dtype=np.int64).T
        slo_s = served_s = nats = lead = total = rest
        if "slack_s" in asked:
            slo_s = np.array([s.request.first_token_slo_s for s in sequences])
        if "served_s" in asked:
            served_s = np.array([s.served_s for s in sequences])
        if "collapse_nats" in asked:
            nats = np.array([collapse.read(request_id) for request_id in ids])
        if "client_service" in asked and service is not None:
            lead = service.read(sequences)
        if "oracle_tokens" in asked:
            total = np.array([math.nan if oracle is None else oracle[i] for i in ids])
        return cls(counts, slo_s, served_s, nats, lead, total)


def counts_of(sequence: Sequence) -> tuple[int, ...]:
    """Return the whole numbers of a sequence that signals are computed from."""
    request = sequence.request
    return (
        sequence.arrival_ns,
        sequence.wait_since_ns,
        sequence.computed,
        sequence.generated,
        request.prompt_tokens,
        request.max_tokens,
        sequence.held,
        sequence.holes,
        sequence.wait_since_step,
        request.priority,
        sequence.predicted_left,
    )


def load_signal(
    sequences: Seq[Sequence],
    now_ns: int,
    *,
    limits: EngineLimits,
    step_law: StepLaw,
    quantum_tokens: int | None,
    collapse: CollapseSensor,
    step: int = 0,
    service: ServiceCounters | None = None,
    oracle: Mapping[int, int] | None = None,
    asked: Collection[str] = ALL,
) -> LoadSignal:
    """Build the macro law's signals for ``sequences``, float32 ``[B]``; times relative, seconds.

    ``step`` is the plan being made; without ``service`` no client leads. True output lengths are
    read from ``oracle`` alone (request id -> tokens), and without it that column is NaN. Of fields
    that are not ``asked`` for, nothing is meant.
    """
    table = LoadTable.of(sequences, collapse=collapse, service=service, oracle=oracle, asked=asked)
    return signal_of(
        table,
        now_ns,
        limits=limits,
        step_law=step_law,
        quantum_tokens=quantum_tokens,
        step=step,
        asked=asked,
    )


def signal_of(
    table: LoadTable,
    now_ns: int,
    *,
    limits: EngineLimits,
    step_law: StepLaw,
    quantum_tokens: int | None,
    step: int,
    asked: Collection[str] = ALL,
) -> LoadSignal:
    """Build the signals of a table, float32 ``[B]``; times relative, seconds.

    Slack is the deadline of the first token minus age until that token is given, and
    ``SLACK_SERVED_S`` after. The cost is in :func:`_cost_s`. Those not ``asked`` for are 0.
    """
    arrival_ns, since_ns, computed, generated, prompt, cap, held, holes, since, rank, guess = (
        table.counts
    )
    none = np.zeros(len(held), np.float32)
    found = dict.fromkeys(LoadSignal._fields, none)
    age_s = np.maximum(now_ns - arrival_ns, 0) / NS_PER_S
    known = prompt + generated
    kv_tokens = known - holes * limits.page_tokens
    prefill_s = none
    if "cost_s" in asked or "prefill_s" in asked:
        prefill_s = _prefill_s(computed, known, step_law)

    columns: dict[str, Callable[[], np.ndarray]] = {
        "age_s": lambda: age_s,
        "wait_s": lambda: np.maximum(now_ns - since_ns, 0) / NS_PER_S,
        "slack_s": lambda: np.where(generated > 0, SLACK_SERVED_S, table.slo_s - age_s),
        "cost_s": lambda: _cost_s(
            prefill_s, kv_tokens, cap - generated, limits, step_law, quantum_tokens
        ),
        "pages_held": lambda: held,
        "pages_needed": lambda: np.maximum(-(-(known + 1) // limits.page_tokens) - held - holes, 0),
        "collapse_nats": lambda: table.collapse_nats,
        "completion": lambda: generated / cap,
        "wait_steps": lambda: np.maximum(step - since, 0),
        "served_s": lambda: table.served_s,
        "prefill_s": lambda: prefill_s,
        "token_s": lambda: _token_s(kv_tokens, limits, step_law),
        "user_priority": lambda: rank,
        "predicted_tokens": lambda: guess,
        "client_service": lambda: table.client_service,
        "oracle_tokens": lambda: table.oracle_tokens - generated,
    }
    for name in asked:
        found[name] = columns[name]().astype(np.float32)
    return LoadSignal(**found)


def still_signal(
    asked: Collection[str],
    *,
    limits: EngineLimits,
    step_law: StepLaw,
    quantum_tokens: int | None,
) -> Callable[[Sequence, float, float], tuple[float, ...]]:
    """Return what reads off a sequence the signals ``asked`` for that stand still while it waits.

    It takes the sequence, its collapse, nats, and its true output tokens in all, or NaN, and gives
    float64 numbers in the order asked for. What moves with the clock or with other clients is 0.
    """

    def kv_tokens(of: Sequence) -> int:
        return of.known - of.holes * limits.page_tokens

    def prefill_s(of: Sequence) -> float:
        return prefill_row_s(step_law, of.computed, of.pending) if of.pending > 1 else 0.0

    def cost_s(of: Sequence) -> float:
        left = of.request.max_tokens - of.generated
        return _cost_s(prefill_s(of), kv_tokens(of), left, limits, step_law, quantum_tokens)

    moving = ("age_s", "wait_s", "slack_s", "wait_steps", "client_service")
    known: dict[str, Callable[[Sequence, float, float], float]] = {
        **dict.fromkeys(moving, lambda *_: 0.0),
        "cost_s": lambda of, *_: cost_s(of),
        "pages_held": lambda of, *_: of.held,
        "pages_needed": lambda of, *_: max(limits.pages_for(of.known + 1) - len(of.pages), 0),
        "collapse_nats": lambda _, nats, __: nats,
        "completion": lambda of, *_: of.generated / of.request.max_tokens,
        "served_s": lambda of, *_: of.served_s,
        "prefill_s": lambda of, *_: prefill_s(of),
        "token_s": lambda of, *_: _token_s(kv_tokens(of), limits, step_law),
        "user_priority": lambda of, *_: of.request.priority,
        "predicted_tokens": lambda of, *_: of.predicted_left,
        "oracle_tokens": lambda of, _, tokens: tokens - of.generated,
    }
    read = [known[name] for name in asked]
    return lambda of, nats, tokens: tuple([one(of, nats, tokens) for one in read])


def prefill_row_s(step_law: StepLaw, computed: int, n_tokens: int) -> float:
    """Return the modelled seconds of a chunk of prompt after ``computed`` tokens, as if alone."""
    return step_law.step_s(0, 0, n_tokens, chunk_squares(computed, n_tokens))


def _prefill_s(computed: np.ndarray, known: np.ndarray, step_law: StepLaw) -> np.ndarray:
    """Seconds to prefill or recompute what is pending, as one step of its own; 0 in decode."""
    pending = known - computed
    if not (pending > 1).any():
        return np.zeros(len(pending))
    prefill = np.where(pending > 1, pending, 0)
    none = np.zeros((), np.int64)
    alone_s = step_law.step_s(none, none, prefill, prefill * (2 * computed + prefill))
    return np.where(prefill > 0, alone_s, 0.0)


def _cost_s(
    prefill_s: Array,
    kv_tokens: Array,
    remaining: Array,
    limits: EngineLimits,
    step_law: StepLaw,
    quantum_tokens: int | None,
) -> Array:
    """Seconds to give each sequence its next quantum, float64 ``[B]``.

    Recomputing or prefilling what is pending, as one step of its own, plus ``min(quantum,
    max_tokens left)`` decode rows, each bearing 1/max_seqs of the intercept: the share it has in a
    full batch, since the price of an empty one would hide what sequences differ in.
    """
    n_decode = remaining
    if quantum_tokens is not None:
        smaller = np.minimum if isinstance(remaining, np.ndarray) else min
        n_decode = smaller(remaining, quantum_tokens)
    return prefill_s + n_decode * _token_s(kv_tokens + n_decode / 2, limits, step_law)


def _token_s(context: Array, limits: EngineLimits, step_law: StepLaw) -> Array:
    """Seconds of one decode row after ``context`` tokens, float64 ``[B]``, in a full batch."""
    shared_s = step_law.base_s / limits.max_seqs + step_law.per_decode_s
    return shared_s + step_law.per_kv_token_s * context
