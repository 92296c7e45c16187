"""Times of each request, as a ledger's request rows give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.serving.ledger import CANCELLED, COMPLETED, NEVER, Ledger
from controllers.serving.summary import NS_PER_S, Metric, jain, ratio, summary
from controllers.steplaw import StepLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """One entry per request row, ``[R]``; seconds. Times that never came are meaningless numbers.

    Use them under the masks: ``served`` got a token, ``started`` was scheduled, ``completed``
    ended by itself or at its cap, ``several`` completed with two tokens or more, ``good``
    completed within both thresholds, ``kept`` arrived after the warm-up.
    """

    kept: np.ndarray
    started: np.ndarray
    served: np.ndarray
    completed: np.ndarray
    several: np.ndarray
    good: np.ndarray
    left: np.ndarray  # ended, and its user did not cancel it
    queue_s: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray
    e2e_s: np.ndarray
    speed: np.ndarray  # modelled end-to-end time alone on a server, over the real one
    tokens: np.ndarray
    has_slo: bool

    @classmethod
    def of(
        cls,
        ledger: Ledger,
        *,
        step_law: StepLaw,
        ttft_slo_s: float | None,
        tpot_slo_s: float | None,
        from_ns: int,
    ) -> RequestTimes:
        """Read the request rows; a threshold that is None does not bind."""
        requests = ledger.requests
        arrival, first = requests["arrival_ns"], requests["first_token_ns"]
        finish, tokens = requests["finish_ns"], requests["tokens"]
        completed = np.array([reason in COMPLETED for reason in ledger.reasons], dtype=bool)
        ttft_s = (first - arrival) / NS_PER_S
        tpot_s = (finish - first) / NS_PER_S / np.maximum(tokens - 1, 1)
        e2e_s = (finish - arrival) / NS_PER_S
        several = completed & (tokens > 1)
        good = completed & (ttft_s <= _or_inf(ttft_slo_s))
        good &= ~several | (tpot_s <= _or_inf(tpot_slo_s))
        alone_s = _alone_s(step_law, requests["prompt_tokens"], tokens)
        return cls(
            kept=arrival >= from_ns,
            started=requests["first_scheduled_ns"] != NEVER,
            served=first != NEVER,
            completed=completed,
            several=several,
            good=good,
            left=np.array([r not in (None, CANCELLED) for r in ledger.reasons], dtype=bool),
            queue_s=(requests["first_scheduled_ns"] - arrival) / NS_PER_S,
            ttft_s=ttft_s,
            tpot_s=tpot_s,
            e2e_s=e2e_s,
            speed=alone_s / np.maximum(e2e_s, 1 / NS_PER_S),
            tokens=tokens,
            has_slo=ttft_slo_s is not None or tpot_slo_s is not None,
        )

    def latencies(self, kept: np.ndarray) -> dict[str, Metric]:
        """Return the summaries over the requests ``kept``, bool ``[R]``."""
        return {
            "queue_s": summary(self.queue_s[kept & self.started]),
            "ttft_s": summary(self.ttft_s[kept & self.served]),
            "tpot_s": summary(self.tpot_s[kept & self.several]),
            "e2e_s": summary(self.e2e_s[kept & self.completed]),
        }

    def rates(self, kept: np.ndarray, span_s: float | None) -> dict[str, Metric]:
        """Return tokens, requests and good requests per second, and the share of good ones."""
        good = float((kept & self.good).sum())
        attained = ratio(good, float((kept & self.left).sum()))
        return {
            "throughput_tokens_per_s": ratio(float(self.tokens[kept].sum()), span_s),
            "throughput_requests_per_s": ratio(float((kept & self.completed).sum()), span_s),
            "goodput_requests_per_s": ratio(good, span_s) if self.has_slo else None,
            "slo_attainment": attained if self.has_slo else None,
        }

    def jain(self, kept: np.ndarray) -> float | None:
        """Return Jain's index of ``speed`` over completed requests."""
        return jain(self.speed[kept & self.completed])

    def jain_groups(self, kept: np.ndarray, group: np.ndarray) -> float | None:
        """Return Jain's index of the mean ``speed`` of each group; ``group`` is int ``[R]``."""
        done = kept & self.completed
        n = np.bincount(group[done])
        return jain(np.bincount(group[done], self.speed[done])[n > 0] / n[n > 0])


def _or_inf(threshold: float | None) -> float:
    return float("inf") if threshold is None else threshold


def _alone_s(step_law: StepLaw, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Modelled seconds each request would take on an idle server, float64 ``[R]``."""
    none = np.zeros_like(prompt)
    later = np.maximum(tokens - 1, 0)
    kv_read = later * prompt + later * (later + 1) // 2
    decode = later * (step_law.base_s + step_law.per_decode_s) + step_law.per_kv_token_s * kv_read
    return step_law.step_s(none, none, prompt, prompt * prompt) + decode
