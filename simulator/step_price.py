"""What a step costs in mode online: page units, and nanoseconds by the step law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from controllers.serving.messages import Row
from controllers.serving.pages import HOLE
from controllers.steplaw import StepLaw, chunk_squares
from simulator.model import TraceModel


class Decoded(NamedTuple):
    """What the one-token rows of a step read; units are pages of all layers and heads."""

    rows: int
    kept: int  # units
    dense: int  # units
    scored: int  # units
    kv_tokens: int
    longest: int  # tokens of one row


NOTHING = Decoded(0, 0, 0, 0, 0, 0)


class StepPrice:
    """Prices steps of a recording under a step law.

    Pages are those that hold tokens; a request may own one more, reserved and not yet read.
    """

    def __init__(self, model: TraceModel, step_law: StepLaw) -> None:
        self._size = model.page_tokens
        self._units_per_page = model.layers * model.kv_heads
        self._law = step_law
        self._skewed = step_law.per_skewed_kv_token_s > 0.0

    def alike(
        self,
        coverage: Sequence[float],
        share: np.ndarray | None,
        sizes: np.ndarray,
        totals: tuple[int, int, int],
    ) -> Decoded:
        """Return what rows read that are all one-token rows without holes.

        ``share`` ``[S]`` is None where all is read; ``sizes`` ``[2, S]`` are the units and the
        tokens of each row, float64, and ``totals`` their sums and the most tokens.
        """
        units, tokens, longest = totals
        n = len(coverage)
        if share is None:
            return Decoded(n, units, units, 0, tokens, longest)
        read = sizes * share
        np.rint(read, out=read)  # halves to even, as round() does
        kept, kv_tokens = np.add.reduce(read, 1).tolist()
        scored = units
        if max(coverage) >= 1.0:
            each = sizes[0].tolist()
            scored -= int(sum([u for u, c in zip(each, coverage, strict=True) if c >= 1.0]))
        most = int(read[1].max()) if self._skewed else 0
        return Decoded(n, int(kept), units, scored, int(kv_tokens), most)

    def each(
        self,
        sampled: Sequence[Row],
        share: np.ndarray | None,
        pages: Mapping[int, list[int]] | None,
    ) -> Decoded:
        """Return what the one-token rows among ``sampled`` read; ``pages`` None: no holes."""
        kept = dense = scored = rows = kv_tokens = longest = 0
        parts = [1.0] * len(sampled) if share is None else share.tolist()
        for row, part in zip(sampled, parts, strict=True):
            if row.n_tokens == 1:
                holes = 0 if pages is None else pages[row.request_id].count(HOLE)
                units = (-(-(row.start + 1) // self._size) - holes) * self._units_per_page
                kept += round(part * units)
                dense += units
                scored += units if row.coverage < 1.0 else 0
                rows += 1
                kv_read = round(part * (row.start + 1 - holes * self._size))
                kv_tokens += kv_read
                longest = max(longest, kv_read)
        return Decoded(rows, kept, dense, scored, kv_tokens, longest)

    def duration_ns(self, decoded: Decoded, rows: Sequence[Row]) -> int:
        """Return the nanoseconds of a step of ``rows``, of which ``decoded`` are one-token rows."""
        prompt_tokens = squares = 0
        if decoded.rows < len(rows):
            for row in rows:
                if not (row.samples and row.n_tokens == 1):
                    prompt_tokens += row.n_tokens
                    squares += chunk_squares(row.start, row.n_tokens)
        seconds = self._law.step_s(
            decoded.rows,
            decoded.kv_tokens,
            prompt_tokens,
            squares,
            decoded.longest,
            decoded.scored,
        )
        return max(1, round(1e9 * seconds))
