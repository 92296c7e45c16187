"""The recorder: turns a dense live run into an entropy trace, one row per generated token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from backend.attention import PageObserver
from backend.pagecurves import PageCurveObserver
from backend.sensors import row_stats
from backend.whatif import compare, pruned_logits
from controllers.serving.messages import Result, Row
from traces.schema import TOKENS, X_NODES, C, P

if TYPE_CHECKING:
    from backend.executor import LiveExecutor


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Which tokens get what-if passes."""

    every: int = 17  # generated tokens between samples; prime to the page size
    min_context: int = 512  # below this pruning has nothing to drop

    def wants(self, row: Row, generated: int) -> bool:
        """Whether a decode row is sampled; offset by half a period, so probes do not coincide."""
        due = generated % self.every == self.every // 2
        return row.n_tokens == 1 and row.start >= self.min_context and due


class TraceRecorder:
    """Collects token rows in memory per request; ``take`` hands over those of a finished one."""

    def __init__(self, what_if: WhatIf | None = None, *, page_curves: bool = True) -> None:
        """Record with the given what-if sampling; ``None`` runs no what-if passes.

        Without ``page_curves`` the attention is not looked at and every page counts as kept: for
        studies that ask about entropy alone.
        """
        self._what_if = what_if
        self._curves = PageCurveObserver()
        self.page_observer: PageObserver | None = self._curves if page_curves else None
        self._pruned: dict[int, Tensor] = {}
        self._rows: dict[int, list[dict[str, object]]] = {}

    def before(
        self, executor: LiveExecutor, rows: Sequence[Row], pages: Mapping[int, list[int]]
    ) -> None:
        """Run the step's what-if passes."""
        if self._what_if is None:
            return
        chosen = [
            row
            for row in rows
            if row.samples
            and row.coverage >= 1.0
            and self._what_if.wants(row, executor.live[row.request_id].generated)
        ]
        self._pruned = pruned_logits(executor, chosen, pages)

    def after(
        self, executor: LiveExecutor, rows: Sequence[Row], logits: Tensor, result: Result
    ) -> None:
        """Record every sampled row of the step that gave a token."""
        sampled, logits = [row for row in rows if row.samples], logits.cpu()
        h, v = measure_nodes(logits)
        for lane, row in enumerate(sampled):
            curves = self._curves.take(row.request_id)
            if result.tokens[lane] < 0:
                continue
            entropies, kl = np.full((C, P), np.nan), np.full(C, np.nan)
            if row.request_id in self._pruned:
                entropies, kl = compare(logits[lane], self._pruned[row.request_id])
            record = {
                "request": 0,  # set when the request is written
                "position": executor.live[row.request_id].generated - 1,
                "context": row.start + row.n_tokens,
                "token": result.tokens[lane],
                "x_applied": result.commands[lane],
                "h_applied": result.h_applied[lane],
                "surprisal": result.surprisal[lane],
                "h_cal": result.signals.h_cal[lane],
                "v_cal": result.signals.v_cal[lane],
                "h": h[lane],
                "v": v[lane],
                "kept_mean": curves.kept_mean,
                "kept_max": curves.kept_max,
                "dropped": curves.dropped,
                "evictable": curves.evictable,
                "h_pruned": entropies,
                "kl_pruned": kl,
            }
            self._rows.setdefault(row.request_id, []).append(record)
        self._pruned = {}

    def take(self, request_id: int, index: int) -> dict[str, np.ndarray]:
        """Return and forget a request's token columns, numbered ``index`` in the trace."""
        rows = self._rows.pop(request_id, [])
        columns = {name: np.array([row[name] for row in rows]) for name in TOKENS.names}
        columns["request"] = np.full(len(rows), index, np.int32)
        return columns


def measure_nodes(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return H and V of logit rows ``[S, n]`` at the trace's nodes, float32 ``[S, N]`` each."""
    stats = row_stats(logits, torch.tensor(X_NODES).float().expand(len(logits), -1))
    return stats.h.numpy(), stats.v.numpy()
