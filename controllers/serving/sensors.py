"""Host sensors of the macro law: entropy collapse per request, and what the rest would cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq

import numpy as np

from controllers.core import LoadSignal, require
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Sequence
from controllers.serving.service import ServiceCounters
from controllers.steplaw import StepLaw, chunk_squares

NS_PER_S = 1_000_000_000
SLACK_SERVED_S = 1.0e6  # slack once the first token is out: no deadline is left


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
        if not math.isfinite(h_cal):
            return
        last, total, count = self._seen.get(request_id, (math.nan, 0.0, -1))
        collapse = last - h_cal
        self._seen[request_id] = (h_cal, total + collapse if collapse > 0.0 else total, count + 1)

    def read(self, request_id: int) -> float:
        """Return the shrunk mean, nats, >= 0."""
        _, total, count = self._seen.get(request_id, (0.0, 0.0, 0))
        if count == 0:
            return self._prior
        return (total + self._prior * self._weight) / (count + self._weight)

    def forget(self, request_id: int) -> None:
        """Drop a finished request; unknown ones are ignored."""
        self._seen.pop(request_id, None)


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
) -> LoadSignal:
    """Build the macro law's signals for ``sequences``, float32 ``[B]``; times relative, seconds.

    Slack is the deadline of the first token minus age until that token is given, and
    ``SLACK_SERVED_S`` after. The cost is in :func:`_cost_s`. ``step`` is the plan being made;
    without ``service`` no client leads. True output lengths are read from ``oracle`` alone
    (request id -> tokens), and without it that column is NaN.
    """
    table = np.array(
        [
            (
                now_ns - s.arrival_ns,
                now_ns - s.wait_since_ns,
                s.computed,
                s.generated,
                s.request.prompt_tokens,
                s.request.max_tokens,
                s.held,
                s.holes,
                step - s.wait_since_step,
                s.request.priority,
                s.predicted_left,
            )
            for s in sequences
        ],
        dtype=np.int64,
    ).T
    age_ns, wait_ns, computed, generated, prompt, cap, held, holes, wait_steps, rank, guess = table
    slo_s = np.array([s.request.first_token_slo_s for s in sequences])
    age_s = np.maximum(age_ns, 0) / NS_PER_S
    needed = -(-(prompt + generated + 1) // limits.page_tokens)
    known = prompt + generated
    kv_tokens = known - holes * limits.page_tokens
    prefill_s = _prefill_s(computed, known, step_law)
    columns = LoadSignal(
        age_s=age_s,
        wait_s=np.maximum(wait_ns, 0) / NS_PER_S,
        slack_s=np.where(generated > 0, SLACK_SERVED_S, slo_s - age_s),
        cost_s=_cost_s(prefill_s, kv_tokens, cap - generated, limits, step_law, quantum_tokens),
        pages_held=held,
        pages_needed=np.maximum(needed - held - holes, 0),
        collapse_nats=np.array([collapse.read(s.request.request_id) for s in sequences]),
        completion=generated / cap,
        wait_steps=np.maximum(wait_steps, 0),
        served_s=np.array([s.served_s for s in sequences]),
        prefill_s=prefill_s,
        token_s=_token_s(kv_tokens, limits, step_law),
        user_priority=rank,
        predicted_tokens=guess,
        client_service=np.zeros(len(sequences)) if service is None else service.read(sequences),
        oracle_tokens=_oracle_tokens(sequences, oracle),
    )
    return LoadSignal(*(column.astype(np.float32) for column in columns))


def prefill_row_s(step_law: StepLaw, computed: int, n_tokens: int) -> float:
    """Return the modelled seconds of a chunk of prompt after ``computed`` tokens, as if alone."""
    return step_law.step_s(0, 0, n_tokens, chunk_squares(computed, n_tokens))


def _oracle_tokens(sequences: Seq[Sequence], oracle: Mapping[int, int] | None) -> np.ndarray:
    if oracle is None:
        return np.full(len(sequences), np.nan)
    return np.array([float(oracle[s.request.request_id] - s.generated) for s in sequences])


def _prefill_s(computed: np.ndarray, known: np.ndarray, step_law: StepLaw) -> np.ndarray:
    """Seconds to prefill or recompute what is pending, as one step of its own; 0 in decode."""
    pending = known - computed
    prefill = np.where(pending > 1, pending, 0)
    none = np.zeros_like(prefill)
    alone_s = step_law.step_s(none, none, prefill, prefill * (2 * computed + prefill))
    return np.where(prefill > 0, alone_s, 0.0)


def _cost_s(
    prefill_s: np.ndarray,
    kv_tokens: np.ndarray,
    remaining: np.ndarray,
    limits: EngineLimits,
    step_law: StepLaw,
    quantum_tokens: int | None,
) -> np.ndarray:
    """Seconds to give each sequence its next quantum, float64 ``[B]``.

    Recomputing or prefilling what is pending, as one step of its own, plus ``min(quantum,
    max_tokens left)`` decode rows, each bearing 1/max_seqs of the intercept: the share it has in a
    full batch, since the price of an empty one would hide what sequences differ in.
    """
    n_decode = remaining if quantum_tokens is None else np.minimum(remaining, quantum_tokens)
    return prefill_s + n_decode * _token_s(kv_tokens + n_decode / 2, limits, step_law)


def _token_s(context: np.ndarray, limits: EngineLimits, step_law: StepLaw) -> np.ndarray:
    """Seconds of one decode row after ``context`` tokens, float64 ``[B]``, in a full batch."""
    shared_s = step_law.base_s / limits.max_seqs + step_law.per_decode_s
    return shared_s + step_law.per_kv_token_s * context
