"""Fairness between clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controllers import ops
from controllers.core import LoadSignal
from controllers.ops import Array
from controllers.priority import Stateless


@dataclass(frozen=True, slots=True, kw_only=True)
class Vtc:
    """pi = -client_service: the client that was given least goes first, then arrival.

    The Virtual Token Counter (Sheng et al., OSDI 2024, arXiv:2401.00588). Counting, weights (1 per
    prompt token at admission, 2 per output token) and the lift of idle clients are a sensor's,
    ``controllers/serving/service.py``, for they compare lanes. Published bound: two clients that
    always have something queued differ by at most 2 max(L_in, 2 M) in weighted tokens, L_in the
    longest prompt and M the most tokens a full batch may hold, where nothing is preempted.

    Differs: the published scheduler picks and charges one request at a time; here one decision
    ranks all, by what each client will have been charged by then, which gives the same order.
    A request preempted for its pages is not charged for its prompt again, nor is it queued for
    the lift. NaN policy: a non-finite counter counts as zero.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return minus the client's lead, weighted tokens."""
        lead = signal.client_service
        return state, -ops.finite_or(lead, ops.full_like(lead, 0.0))
