"""What one run showed, live or simulated: the same columns, from the same kind of ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controllers.serving.ledger import Ledger
from simulator.verdict import Run

NS_PER_S = 1e9
REQUESTS = ("request_id", "prompt_tokens", "arrival_ns", "first_scheduled_ns", "first_token_ns")
REQUESTS = (*REQUESTS, "finish_ns", "tokens", "preemptions")
TOKENS = ("request_id", "position", "now_ns", "h_applied", "h_cal", "command", "coverage")
STEPS = ("now_ns", "duration_ns", "n_decode", "prompt_tokens", "pages_held")
STEPS = (*STEPS, "page_units_read", "page_units_dense", "pages_scored")
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A run as columns; requests and tokens in order of request id, which is that of arrival."""

    requests: Columns
    tokens: Columns
    steps: Columns

    @classmethod
    def of(cls, ledger: Ledger) -> Observed:
        """Read a ledger."""
        requests = {name: ledger.requests[name] for name in REQUESTS}
        tokens = {name: ledger.tokens[name] for name in TOKENS}
        by_id = np.argsort(requests["request_id"])
        by_place = np.lexsort((tokens["position"], tokens["request_id"]))
        return cls(
            requests={name: column[by_id] for name, column in requests.items()},
            tokens={name: column[by_place] for name, column in tokens.items()},
            steps={name: ledger.steps[name] for name in STEPS},
        )

    def latencies(self) -> dict[str, np.ndarray]:
        """Return TTFT, TPOT and end-to-end time of each request, and each gap of ITL, seconds."""
        arrival, first, last = (
            self.requests[name] / NS_PER_S for name in ("arrival_ns", "first_token_ns", "finish_ns")
        )
        same = np.diff(self.tokens["request_id"]) == 0
        return {
            "ttft_s": first - arrival,
            "tpot_s": (last - first) / np.maximum(self.requests["tokens"] - 1, 1),
            "e2e_s": last - arrival,
            "itl_s": np.diff(self.tokens["now_ns"])[same] / NS_PER_S,
        }

    def totals(self) -> dict[str, float]:
        """Return rates over the span from first arrival to last finish, and counts."""
        span_s = float(self.requests["finish_ns"].max() - self.requests["arrival_ns"].min())
        span_s /= NS_PER_S
        return {
            "throughput_tokens_per_s": float(self.requests["tokens"].sum()) / span_s,
            "throughput_requests_per_s": len(self.requests["request_id"]) / span_s,
            "page_units_read": float(self.steps["page_units_read"].sum()),
            "kv_pages_kept_share": float(
                self.steps["page_units_read"].sum() / max(1, self.steps["page_units_dense"].sum())
            ),
            "preemptions": float(self.requests["preemptions"].sum()),
            "steps": float(len(self.steps["now_ns"])),
        }

    def trajectories(self) -> dict[str, np.ndarray]:
        """Return temperature, coverage and entropies of every token."""
        return {
            "temperature": np.exp(self.tokens["command"]),
            "coverage": self.tokens["coverage"],
            "h_cal_nats": self.tokens["h_cal"],
            "h_applied_nats": self.tokens["h_applied"],
        }

    def watched(self) -> Run:
        """Return the run as a stability verdict reads it."""
        arrival, first, finish = (
            self.requests[name] / NS_PER_S
            for name in ("arrival_ns", "first_scheduled_ns", "finish_ns")
        )
        return Run(arrival_s=arrival, first_s=first, finish_s=finish, end_s=float(finish.max()))
