"""Shortest first: by a prediction, and by the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controllers import ops
from controllers.core import LoadSignal
from controllers.ops import Array
from controllers.priority import Stateless
from controllers.schedulers.user import LAST, bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortestJob:
    """pi = -(prefill_s + predicted_tokens token_s), seconds. No aging: the long starve under load.

    Shortest job first as the textbook has it, by the modelled work still to do: the prompt and the
    predicted output. A request that nobody predicted counts with its ``max_tokens``, one that
    outran its prediction with one token. Published servers differ in what they call short
    (prompt, output, both), and in tokens; seconds weigh the two as this machine does. NaN policy:
    a non-finite prediction goes last, a non-finite time counts as zero.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return minus the predicted work left, seconds, in [-2^24, 0]."""
        return state, -_work_s(signal, signal.predicted_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class SrptOracle:
    """pi = -(prefill_s + oracle_tokens token_s), seconds: an oracle, to compare with; never live.

    Shortest remaining processing time minimises the mean time in system on one server whose work
    is known and can be interrupted for free (Schrage 1968). Here it is a yardstick and no proven
    optimum: a batch serves many at once, and a displaced request pays for its KV again. FastServe's
    ``SRPT`` counts output tokens alone, which is no measure of work where prompts are long. NaN
    policy: an unknown length goes last, a non-finite time counts as zero.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = True

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return minus the true work left, seconds, in [-2^24, 0]."""
        return state, -_work_s(signal, signal.oracle_tokens)


def _work_s(signal: LoadSignal, tokens: Array) -> Array:
    """Seconds of prefill and of ``tokens`` more tokens, in [0, 2^24]; the most if unknown."""
    none = ops.full_like(tokens, 0.0)
    prefill_s = ops.clip(ops.finite_or(signal.prefill_s, none), 0.0, LAST)
    token_s = ops.clip(ops.finite_or(signal.token_s, none), 0.0, LAST)
    known = (tokens - tokens) == none
    work_s = prefill_s + bounded(tokens, 0.0) * token_s
    return ops.minimum(ops.where(known, work_s, ops.full_like(tokens, LAST)), LAST)
