"""What a recorded token's decode row would take in a full batch, by the profile's step law."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reports.claims.context import Context

SCORE_SHARE = 1.0 / 16.0  # of a page's bytes, read to score it where the law prices no scoring


class RowSeconds(NamedTuple):
    """Seconds of a row, ``[tokens]``; the last is the same for all."""

    read: np.ndarray  # its KV, all pages
    choose: np.ndarray  # scoring and choosing pages, were it pruned
    rest: float

    @property
    def dense(self) -> np.ndarray:
        """Seconds of the row, every page read."""
        return self.read + self.rest


def row_seconds(context: Context, score_share: float | None = None) -> RowSeconds:
    """Return each recorded token's row in a full batch, whatever the device would prune.

    ``score_share`` of the read is paid for choosing where it is given, or where the law prices no
    scoring (then 1/16); else what the law says.
    """
    law, limits = context.scenario.profile.law, context.scenario.limits
    tokens = context.trace.columns["context"].astype(np.float64)
    read = law.per_kv_token_s * tokens
    if score_share is not None or not law.prices_scoring:
        choose = (SCORE_SHARE if score_share is None else score_share) * read
    else:
        units = context.model.layers * context.model.kv_heads
        scored = np.ceil(tokens / limits.page_tokens) * units
        choose = law.per_scored_unit_s * scored + law.pruned_step_s / limits.max_seqs
    return RowSeconds(read, choose, float(law.decode_row_s(limits.max_seqs)))
