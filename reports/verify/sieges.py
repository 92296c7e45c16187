"""The four adversaries: a case of small integers in, a siege out."""

from __future__ import annotations

from typing import Any

from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from reports.verify.property import Case, Number, Space
from simulator.starvation import VICTIM, Siege

PAGE_TOKENS = 4
TOKEN_BUDGET = 32
LOOSE_S = 1.0e4  # a first-token deadline that never presses
TIGHT_S = 1.0e-3  # one that is missed at once
SHORTEST_MS = 300  # of the step; shorter ones stretch a wait in seconds over more steps

COMMON: Space = {
    "slots": Number(1, 4, integer=True),
    "crowd": Number(1, 6, integer=True),  # fresh requests alive beside the victim
    "period": Number(1, 3, integer=True),  # steps between arrivals
    "step_ms": Number(SHORTEST_MS, 1000, integer=True),
    "fresh_prompt": Number(1, 16, integer=True),
    "fresh_output": Number(1, 12, integer=True),
    "victim_prompt": Number(1, 40, integer=True),
    "victim_output": Number(1, 24, integer=True),
    "pressed": Number(0, 2, integer=True),  # who is late and ranks first: none, victim, fresh
    "spare_pages": Number(0, 4, integer=True),
}
QUANTUM: Space = {"quantum": Number(0, 16, integer=True)}  # tokens; 0 none


def _siege(case: Case, *, n_pages: int, **changes: Any) -> Siege:
    """Return the siege that all adversaries have in common."""
    victim_slo = TIGHT_S if case["pressed"] == 1 else LOOSE_S
    fresh_slo = TIGHT_S if case["pressed"] == 2 else LOOSE_S
    victim = Request(
        request_id=VICTIM,
        prompt_tokens=case["victim_prompt"],
        max_tokens=case["victim_output"],
        first_token_slo_s=victim_slo,
        priority=int(case["pressed"] == 2),
    )
    fresh = Request(
        request_id=VICTIM + 1,
        prompt_tokens=case["fresh_prompt"],
        max_tokens=case["fresh_output"],
        first_token_slo_s=fresh_slo,
        priority=int(case["pressed"] == 1),
    )
    lengths = [r.prompt_tokens + r.max_tokens for r in (victim, fresh)]
    limits = EngineLimits(
        max_seqs=case["slots"],
        token_budget=TOKEN_BUDGET,
        n_pages=max(n_pages, *(_pages(length) for length in lengths)) + case["spare_pages"],
        max_context=max(lengths),
        page_tokens=PAGE_TOKENS,
    )
    return Siege(
        limits=limits,
        step_s=case["step_ms"] / 1000.0,
        victim=victim,
        fresh=fresh,
        crowd=case["crowd"],
        period=case["period"],
        **changes,
    )


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)


def fresh_arrivals(case: Case) -> Siege:
    """Pages for all: only the order keeps the victim out."""
    fresh = _pages(case["fresh_prompt"] + case["fresh_output"])
    victim = _pages(case["victim_prompt"] + case["victim_output"])
    return _siege(case, n_pages=case["slots"] * max(fresh, victim))


def frozen_waiter(case: Case) -> Siege:
    """The victim runs first; pages for all to start, too few for all to grow."""
    started = _pages(case["victim_prompt"] + case["lead"] + 1)
    started += case["crowd"] * _pages(case["fresh_prompt"] + 1)
    return _siege(case, n_pages=started, victim_first=True, lead=case["lead"])


def memory_hog(case: Case) -> Siege:
    """The victim needs the whole pool but ``spare_pages``; whoever is small slips past."""
    return _siege(case, n_pages=_pages(case["victim_prompt"] + case["victim_output"]))


def ping_pong(case: Case) -> Siege:
    """Either fits, and both can start; both together cannot finish."""
    start = _pages(case["victim_prompt"] + 1) + _pages(case["fresh_prompt"] + 1)
    return _siege(case, n_pages=start, tokens_count=True)
