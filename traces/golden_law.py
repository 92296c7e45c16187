"""A step cost read off published kernel tables, where an affine law is too coarse.

The steps of an engine are composed of its kernels: dense layers by tokens in the step, attention by
what it attends to, head and sampler by sequences. What the CPU does between kernels is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.steplaw import StepLaw
from traces.golden_tables import Attention, Line, Skew

MICRO = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTables:
    """Kernel times of one GPU and one model; microseconds in, seconds out."""

    layers: int
    dense: Line  # all layers and what surrounds them, by tokens in the step
    heads: Line  # output head and sampler, by sequences
    attention: Attention  # of one layer
    skew: Skew | None  # None: not measured
    skewed: bool = True  # False: every batch counts as one of equal contexts
    cpu_s: float = 0.0  # of each step, what kernels do not hide; no profile measures it

    def step_s(
        self, rows: float, kv: float, tokens: float, squares: float, longest: float
    ) -> float:
        """Return the seconds of one step: arguments as ``StepLaw.step_s``."""
        sequences = rows + (1.0 if tokens > 0.0 else 0.0)
        once = self.dense(rows + tokens) + self.heads(sequences)
        attention = self.layers * self._attention_us(rows, kv, tokens, squares, longest)
        return MICRO * (once + attention) + self.cpu_s

    def _attention_us(
        self, rows: float, kv: float, tokens: float, squares: float, longest: float
    ) -> float:
        attention = self.attention
        if rows <= 0.0:
            return attention.chunks_us(tokens, squares) if tokens > 0.0 else 0.0
        mean, mixed = kv / rows, tokens > 0.0

        def at(context: float) -> float:
            if mixed:
                return attention.mixed_us(tokens, squares, rows, context)
            return attention.decode(rows, context)

        took = at(mean)
        if self.skew is None or not self.skewed or rows < 2.0 or longest <= mean:
            return took
        share = self.skew.share(rows, mean / longest, mixed=mixed)
        return took + share * max(0.0, at(longest) - took) if share > 0.0 else took


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLaw(StepLaw):
    """A step law whose steps are read off tables; its coefficients are the affine fit of these.

    Whoever asks for coefficients (a price of one request alone, a priority law) gets the fit.
    """

    tables: KernelTables

    def step_s(
        self,
        n_decode: Any,
        kv_tokens_read: Any,
        prompt_tokens: Any,
        prompt_squares: Any,
        kv_longest: Any = 0.0,
        pages_scored: Any = 0.0,
    ) -> Any:
        """Return the seconds of a step, its page scoring unpriced; scalars give a float."""
        given = (n_decode, kv_tokens_read, prompt_tokens, prompt_squares, kv_longest)
        if not any(isinstance(value, np.ndarray) for value in given):
            return self.tables.step_s(*given)
        wide = np.broadcast_arrays(*given)
        rows = zip(*(column.ravel().tolist() for column in wide), strict=True)
        return np.array([self.tables.step_s(*row) for row in rows]).reshape(wide[0].shape)
