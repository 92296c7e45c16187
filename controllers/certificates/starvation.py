"""starvation.*: the most steps a request may go without service (README, Service gap)."""

from __future__ import annotations

import math
from typing import Any

from controllers.certificates.certificate import Certificate
from controllers.certificates.priority import ClaimsAging, aging
from controllers.certificates.wrapping import brought, issue, replaces_ours
from controllers.core import require
from controllers.priority import EntropyPriority, Fcfs, SeedPriority

NAME = "starvation.service_gap"


def service_gap(
    law: Any,
    *,
    n_active: int,
    slots: int,
    residence_steps: int,
    quantum_steps: int | None,
    step_s: float,
    prefill_steps: int = 0,
    redos: int = 0,
    pages_short: bool = True,
    name: str = NAME,
) -> Certificate | None:
    """Bound the steps from one row of a request to its next, or from its arrival to its first.

    W + floor((N - 1)(1 + redos) Q/m) + (N - 1)((1 + redos) prefill + redos + spills) + 2, Q =
    min(R, q); spills, 1 where pages run short under a quantum, are losses of pages after it.
    Fcfs: Q = R, and floor((R - 1)/q) spills that count like redos but repeat no tokens.

    Args:
        law: EntropyPriority (W = pi_max/kappa) or Fcfs (W = 0, Q = R); None for other kinds.
        n_active: N, most requests unfinished at once.
        slots: m, requests that surely fit together: min(max_seqs, n_pages // largest footprint),
            see :func:`sure_slots`.
        residence_steps: R, most tokens a request may generate.
        quantum_steps: q, tokens after which a resident may be displaced; None: never.
        step_s: duration of the *shortest* step, seconds: in W seconds no more than W/step_s fit.
        prefill_steps: steps a prompt, recomputed or not, can keep the token budget exhausted, see
            :func:`budget_steps`; 0 where it fits in one step beside the decode rows.
        redos: most times one request loses its pages to memory pressure in mid-quantum.
        pages_short: False where all slots at full length fit the pool, so that nobody loses pages.
        name: of the property, ``starvation.<adversary>``.
    """
    for key, value in {"n_active": n_active, "slots": slots, "residence": residence_steps}.items():
        require(value >= 1, f"{key} must be >= 1", **{key: value})
    require(quantum_steps is None or quantum_steps >= 1, "quantum must be >= 1", got=quantum_steps)
    require(step_s > 0.0, "step_s must be positive", step_s=step_s)
    require(prefill_steps >= 0 and redos >= 0, "prefill_steps, redos must be >= 0", redos=redos)
    if isinstance(law, ClaimsAging):
        aging(law)  # refuses a claim without a rate
    found = brought(law, name)
    if found is not None or replaces_ours(law):
        return found
    if not isinstance(law, EntropyPriority | Fcfs | SeedPriority):
        return None
    wait_s = law.max_wait_s if isinstance(law, EntropyPriority) else 0.0
    require(pages_short or redos == 0, "redos need pages that run short", redos=redos)
    turn, spills, losses = residence_steps, 0, redos
    if quantum_steps is not None and isinstance(law, Fcfs):
        losses += pages_short * ((residence_steps - 1) // quantum_steps)
    elif quantum_steps is not None:
        turn, spills = min(residence_steps, quantum_steps), int(pages_short)
    others = n_active - 1
    wait_steps = math.ceil(wait_s / step_s)
    queue_steps = others * (1 + redos) * turn // slots
    stalled_steps = others * ((1 + losses) * prefill_steps + losses + spills)
    starves = isinstance(law, SeedPriority)
    total = wait_steps + queue_steps + stalled_steps + 2
    return issue(
        law,
        name,
        kind="exact" if starves else "sufficient",
        holds=not starves,
        statement=(
            "a waiting request's entropy is frozen: fresh ones outrank it for ever"
            if starves
            else f"{wait_steps} steps to age, {queue_steps} of turns, {stalled_steps} stalled, 2"
        ),
        assumptions=(
            "no-bypass reservation; wait restarts only after a full quantum",
            "every resident not stalled by the token budget samples one token a step",
            f"no request loses its pages in mid-quantum more than {redos} times",
            "requests fit the pool, at least `slots` of them at once",
        ),
        constants={
            "n_active": n_active,
            "slots": slots,
            "turn_steps": turn,
            "step_s": step_s,
            "wait_s": wait_s,
            "wait_steps": wait_steps,
            "prefill_steps": prefill_steps,
            "redos": redos,
            "spills": spills + losses - redos,
        },
        bound=math.inf if starves else total,
        unit="steps",
        derivation="Service gap",
    )


def sure_slots(max_seqs: int, n_pages: int, largest_pages: int) -> int:
    """Return how many requests fit together whatever they are, >= 1 where each fits alone."""
    require(largest_pages >= 1, "largest_pages must be >= 1", largest_pages=largest_pages)
    return min(max_seqs, n_pages // largest_pages)


def budget_steps(context: int, token_budget: int, max_seqs: int) -> int:
    """Return the steps that recomputing ``context`` tokens can exhaust the token budget.

    In a step so exhausted at least token_budget - max_seqs + 1 prompt tokens are computed. 0 where
    all slots could prefill such prompts in one step.
    """
    if max_seqs * context < token_budget:
        return 0
    return -(-context // (token_budget - max_seqs + 1))
