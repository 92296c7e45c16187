"""What a server must keep at every step: one small function per rule, an empty string if kept.

None of them asks the scheduler's own ``check``: a broken scheduler may believe itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan
from controllers.serving.request import Status


class Broken(AssertionError):
    """Rules that do not hold, by name, each with what was seen."""

    def __init__(self, breaches: dict[str, str]) -> None:
        super().__init__("; ".join(f"[{name}] {seen}" for name, seen in breaches.items()))
        self.breaches = breaches


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A server just before and just after a plan."""

    loop: ServingLoop
    plan: Plan
    had_work: bool
    decoding: frozenset[int]  # residents that were due one token
    residents: frozenset[int]
    waiting: frozenset[int]
    owed: int | None  # a head that did not fit, which nobody may pass
    waits: Mapping[int, tuple[int, bool]]  # start of the wait, ns; whether a full quantum was had


def pages(loop: ServingLoop) -> str:
    """Every page is free, or held as often as tables of unfinished requests list it."""
    pool = loop.scheduler.pool
    held = Counter(page for sequence in loop.sequences.values() for page in sequence.pages)
    for page in range(pool.n_pages):
        references = pool.references(page)
        if references > held[page]:
            return f"page {page} leaked: {references} references, {held[page]} requests hold it"
        if references < held[page]:
            return f"page {page} is lost: {references} references, {held[page]} requests hold it"
    if pool.n_held != len(held):
        return f"the pool counts {pool.n_held} pages held, requests hold {len(held)}"
    return ""


def tables(loop: ServingLoop) -> str:
    """Residents have pages for what they computed; who waits has none, and nothing computed."""
    for request_id, sequence in loop.sequences.items():
        if sequence.computed > len(sequence.pages) * loop.limits.page_tokens:
            return f"request {request_id} has computed past its pages"
        if sequence.status is Status.WAITING and (sequence.pages or sequence.computed):
            return f"request {request_id} waits with pages or computed tokens"
    return ""


def requests(loop: ServingLoop) -> str:
    """Every unfinished request waits or is resident, never both; none is lost."""
    waiting, running = set(loop.scheduler.waiting), set(loop.scheduler.running)
    if waiting & running:
        return f"requests {sorted(waiting & running)} wait and run at once"
    lost = set(loop.sequences) - waiting - running
    if lost:
        return f"requests {sorted(lost)} got lost: they neither wait nor run"
    ghosts = (waiting | running) - set(loop.sequences)
    if ghosts:
        return f"requests {sorted(ghosts)} are finished and still queued"
    for request_id, sequence in loop.sequences.items():
        expected = Status.RUNNING if request_id in running else Status.WAITING
        if sequence.status is not expected:
            return f"request {request_id} is {sequence.status} and should be {expected}"
    unfinished = loop.ledger.counts()["unfinished"]
    if unfinished != len(loop.sequences):
        return f"the ledger has {unfinished} unfinished requests, the loop {len(loop.sequences)}"
    return ""


def slots(loop: ServingLoop) -> str:
    """There are never more residents than slots."""
    running, most = len(loop.scheduler.running), loop.limits.max_seqs
    return f"{running} residents in {most} slots" if running > most else ""


def work(moment: Moment) -> str:
    """A step is non-empty whenever a resident or an admissible head of line exists.

    Without residents every page is free, and ``submit`` refused what a free pool cannot hold: so
    some head is admissible whenever a request is unfinished.
    """
    if moment.plan.rows or not moment.had_work:
        return ""
    n_residents, n_waiting = len(moment.residents), len(moment.waiting)
    return f"idle: the plan is empty, {n_residents} residents, {n_waiting} waiting"


def budget(moment: Moment) -> str:
    """A step computes at most ``token_budget`` tokens in at most ``max_seqs`` rows."""
    limits, rows = moment.loop.limits, moment.plan.rows
    tokens = sum(row.n_tokens for row in rows)
    if tokens > limits.token_budget:
        return f"{tokens} tokens planned, the budget is {limits.token_budget}"
    return f"{len(rows)} rows in {limits.max_seqs} slots" if len(rows) > limits.max_seqs else ""


def rows(moment: Moment) -> str:
    """Every row belongs to one resident and continues where that one stands."""
    seen: set[int] = set()
    for row in moment.plan.rows:
        sequence = moment.loop.scheduler.running.get(row.request_id)
        if row.request_id in seen:
            return f"request {row.request_id} has two rows"
        seen.add(row.request_id)
        if sequence is None:
            return f"request {row.request_id} has a row and is no resident"
        if row.start != sequence.computed or not 1 <= row.n_tokens <= sequence.pending:
            return f"request {row.request_id} has {sequence.computed} of {sequence.known}: {row}"
    return ""


def decode(moment: Moment) -> str:
    """A resident that is due one token gets it, unless it is preempted."""
    served = {row.request_id for row in moment.plan.rows}
    left_out = moment.decoding - served - set(moment.plan.preempted)
    return f"decode rows of requests {sorted(left_out)} were left out" if left_out else ""


def preempted(moment: Moment) -> str:
    """Only residents are preempted, each once, and they go back to wait."""
    listed = moment.plan.preempted
    if len(set(listed)) != len(listed) or not set(listed) <= moment.residents:
        return f"preempted {list(listed)}, residents were {sorted(moment.residents)}"
    gone = moment.residents - set(listed) - set(moment.loop.scheduler.running)
    return f"residents {sorted(gone)} left without being preempted" if gone else ""


def coverage(moment: Moment) -> str:
    """Coverage lies in (0, 1]; it is 1 but for decode rows under control; probes are dense."""
    for row in moment.plan.rows:
        if not 0.0 < row.coverage <= 1.0:
            return f"request {row.request_id} has coverage {row.coverage}"
        controlled = moment.loop.sequences[row.request_id].request.enabled
        sparse_allowed = row.samples and row.n_tokens == 1 and not row.probe and controlled
        if row.coverage < 1.0 and not sparse_allowed:
            return f"this row must be dense: {row}"
    return ""


def bypass(moment: Moment) -> str:
    """Once a head of line did not fit, nobody who waits is admitted before it."""
    admitted = moment.waiting & set(moment.loop.scheduler.running)
    if moment.owed is None or moment.owed in admitted or not admitted:
        return ""
    return f"requests {sorted(admitted)} passed request {moment.owed}, which was head of line"


def wait(moment: Moment) -> str:
    """A wait restarts after a full quantum and at nothing else: who lost its pages keeps it."""
    for request_id, (since_ns, had_quantum) in moment.waits.items():
        restarted = moment.loop.sequences[request_id].wait_since_ns != since_ns
        if restarted and not had_quantum:
            how = "preempted" if request_id in moment.plan.preempted else "not served"
            return f"the wait of request {request_id} restarts: {how}, without a full quantum"
    return ""


STATE_RULES: tuple[Callable[[ServingLoop], str], ...] = (pages, tables, requests, slots)
PLAN_RULES: tuple[Callable[[Moment], str], ...] = (
    work,
    budget,
    rows,
    decode,
    preempted,
    coverage,
    bypass,
    wait,
)


def judge_state(loop: ServingLoop) -> None:
    """Raise :class:`Broken` with every state rule that does not hold."""
    _raise({rule.__name__: rule(loop) for rule in STATE_RULES})


def judge_plan(moment: Moment) -> None:
    """Raise :class:`Broken` with every rule that the plan just made does not keep."""
    found = {rule.__name__: rule(moment) for rule in PLAN_RULES}
    _raise(found | {rule.__name__: rule(moment.loop) for rule in STATE_RULES})


def _raise(found: dict[str, str]) -> None:
    breaches = {name: seen for name, seen in found.items() if seen}
    if breaches:
        raise Broken(breaches)
