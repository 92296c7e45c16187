"""What the loop checks before it takes a request: that it can be served, and who knows its length.

The oracle boundary: a true output length is known to a simulation alone, and reaches a law only
if that law is marked as an oracle.
"""

from __future__ import annotations

from collections.abc import Mapping

from controllers.core import require
from controllers.priority import PriorityLaw
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request

Oracle = Mapping[int, int]  # request id -> true output tokens


def check_request(request: Request, limits: EngineLimits) -> None:
    """Raise ``ValueError`` for a request that can never be served."""
    length = request.prompt_tokens + request.max_tokens
    require(
        length <= limits.max_context,
        f"prompt_tokens + max_tokens must be <= max_context = {limits.max_context}",
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
    )
    require(
        limits.pages_for(length) <= limits.n_pages,
        f"prompt_tokens + max_tokens must fit the pool of n_pages = {limits.n_pages}",
        pages_needed=limits.pages_for(length),
    )


def check_oracle(law: PriorityLaw, oracle: Oracle | None) -> None:
    """Raise ``ValueError`` for an oracle law without lengths, and for lengths without one."""
    name = type(law).__qualname__
    require(
        oracle is not None or not law.oracle,
        f"{name} is an oracle: it runs only where true output lengths are known, in simulation",
        oracle=None,
    )
    if oracle is not None:
        require(
            law.oracle, f"{name} is no oracle and must not be given lengths", lengths=len(oracle)
        )


def true_tokens(oracle: Oracle | None, request_id: int) -> int | None:
    """Return the true output length of a request; None where no oracle runs."""
    if oracle is None:
        return None
    require(request_id in oracle, "the oracle must know every request", request_id=request_id)
    return oracle[request_id]
