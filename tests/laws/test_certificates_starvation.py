"""The service-gap bound, on the real scheduler, under values that an adversary redraws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controllers.certificates import budget_steps, service_gap, sure_slots
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.schedulers import ShortestJob
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request, Sequence, Status
from controllers.serving.scheduler import Scheduler

LAW = EntropyPriority(pi_max=6.0, kappa=1.0)  # 6 s, here 6 steps of a second
PAGE = 64
GIVEN = {"n_active": 9, "slots": 4, "residence_steps": 50, "quantum_steps": 16, "step_s": 1.0}


class Server:
    """Steps of one second; ages every request, draws its value anew at each decision."""

    def __init__(self, limits: EngineLimits, quantum: int | None, seed: int, *, fcfs: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.fcfs, self.quantum, self.now, self.next_id = fcfs, quantum, 0, 0
        self.alive: dict[int, Sequence] = {}
        self.last_row: dict[int, int] = {}
        self.worst_gap = 0
        self.scheduler = Scheduler(
            limits, quantum_tokens=quantum, reserves=True, score=lambda s, _: self._score(s)
        )

    def _score(self, sequences: object) -> list[float]:
        listed: list[Sequence] = list(sequences)  # pyright: ignore[reportArgumentType]
        if self.fcfs:
            return [float(self.now - s.arrival_ns) for s in listed]
        value = self.rng.choice([0.0, LAW.pi_max], len(listed))
        waits = [self.now - s.wait_since_ns for s in listed]
        return [float(v + LAW.kappa * w) for v, w in zip(value, waits, strict=True)]

    def submit(self, prompt: int, max_tokens: int) -> None:
        request = Request(request_id=self.next_id, prompt_tokens=prompt, max_tokens=max_tokens)
        sequence = Sequence(request=request, arrival_ns=self.now, wait_since_ns=self.now)
        self.scheduler.add(sequence)
        self.alive[self.next_id], self.last_row[self.next_id] = sequence, self.now
        self.next_id += 1

    def step(self) -> None:
        grants, _ = self.scheduler.schedule(self.now)
        for request_id, (sequence, n_tokens) in grants.items():
            self.worst_gap = max(self.worst_gap, self.now - self.last_row[request_id])
            self.last_row[request_id] = self.now
            sequence.computed += n_tokens
            if sequence.pending == 0:
                self._sample(sequence)
        self.now += 1
        for sequence in [s for s in self.alive.values() if s.status is Status.WAITING]:
            self.worst_gap = max(self.worst_gap, self.now - self.last_row[_id(sequence)])

    def _sample(self, sequence: Sequence) -> None:
        sequence.generated += 1
        sequence.quantum_used += 1
        if self.quantum is not None and sequence.quantum_used % self.quantum == 0:
            sequence.wait_since_ns = self.now + 1
        if sequence.generated == sequence.request.max_tokens:
            self.scheduler.remove(sequence)
            del self.alive[_id(sequence)]


def _id(sequence: Sequence) -> int:
    return sequence.request.request_id


def worst_gap(
    seed: int, *, quantum: int | None, n_pages: int, budget: int, fcfs: bool = False
) -> tuple[int, int]:
    """Keep 10 requests of 1 to 3 pages alive for 600 steps; return (worst gap, its bound)."""
    limits = EngineLimits(
        max_seqs=4, token_budget=budget, n_pages=n_pages, max_context=3 * PAGE, page_tokens=PAGE
    )
    server, rng = Server(limits, quantum, seed, fcfs=fcfs), np.random.default_rng(seed)
    for _ in range(600):
        while len(server.alive) < 10:
            # 20 tokens of room on the last page: none grows into another, none is preempted
            server.submit(int(rng.integers(1, 4)) * PAGE - 20, int(rng.integers(1, 20)))
        server.step()
    proof = service_gap(
        Fcfs() if fcfs else LAW,
        n_active=10,
        slots=sure_slots(limits.max_seqs, n_pages, 3),
        residence_steps=19,
        quantum_steps=quantum,
        step_s=1.0,
        prefill_steps=budget_steps(3 * PAGE, budget, limits.max_seqs),
    )
    assert proof is not None
    return server.worst_gap, int(proof.bound)


@pytest.mark.parametrize("quantum", [None, 3, 8])
@pytest.mark.parametrize(("n_pages", "budget"), [(12, 4096), (12, 64), (4, 4096), (3, 100)])
def test_p7_no_request_waits_past_the_certified_gap(
    quantum: int | None, n_pages: int, budget: int
) -> None:
    for seed in range(3):
        gap, bound = worst_gap(seed, quantum=quantum, n_pages=n_pages, budget=budget)
        assert gap <= bound
    gap, bound = worst_gap(0, quantum=quantum, n_pages=n_pages, budget=budget, fcfs=True)
    assert gap <= bound


def test_the_gap_bound_is_within_a_small_factor_of_what_happens() -> None:
    ratios = []
    for seed in range(3):
        gap, bound = worst_gap(seed, quantum=8, n_pages=12, budget=4096)
        ratios.append(bound / gap)
    assert 1.0 <= min(ratios) < 3.0


def test_the_bound_counts_aging_turns_and_stalls() -> None:
    proof = service_gap(LAW, **GIVEN, prefill_steps=2, redos=1)
    assert proof is not None
    assert proof.bound == 6 + 8 * 2 * 16 // 4 + 8 * (2 * 2 + 1 + 1) + 2
    shorter = service_gap(LAW, **{**GIVEN, "step_s": 0.5})
    assert shorter is not None
    assert shorter.constants["wait_steps"] == 12  # shorter steps: more of them in the same wait


def test_first_come_first_served_waits_for_whole_residences() -> None:
    proof = service_gap(Fcfs(), **GIVEN, pages_short=False)
    assert proof is not None
    assert proof.bound == 8 * 50 // 4 + 2
    short = service_gap(Fcfs(), **GIVEN)  # 49 // 16 losses of pages each, after a quantum
    assert short is not None
    assert short.bound == proof.bound + 8 * 3
    with pytest.raises(ValueError, match="redos"):
        service_gap(Fcfs(), **GIVEN, pages_short=False, redos=1)


class Crowd(Server):
    """The first request is worth most, all others nothing; who loses pages is counted."""

    cut_short = 0

    def _score(self, sequences: object) -> list[float]:
        listed: list[Sequence] = list(sequences)  # pyright: ignore[reportArgumentType]
        return [float((_id(s) == 0) + LAW.kappa * (self.now - s.wait_since_ns)) for s in listed]

    def step(self) -> None:
        before = {i: s.quantum_used for i, s in self.alive.items() if s.status is Status.RUNNING}
        super().step()
        waiting = [used for i, used in before.items() if i in self.scheduler.waiting]
        self.cut_short += sum(used < 2 for used in waiting)


def test_pages_lost_after_a_quantum_cost_everyone_ahead_a_step_and_the_bound_counts_them() -> None:
    """Each of 12 fills the pool beside a small resident and needs a page right after its turn."""
    limits = EngineLimits(
        max_seqs=2, token_budget=9999, n_pages=3, max_context=3 * PAGE, page_tokens=PAGE
    )
    server = Crowd(limits, 2, 0, fcfs=False)
    server.submit(10, 50)
    for _ in range(2):
        server.step()
    for _ in range(12):
        server.submit(2 * PAGE - 1, 50)
    for _ in range(60):
        server.step()
    given = {"slots": 1, "residence_steps": 50, "quantum_steps": 2, "step_s": 1.0}
    law = EntropyPriority(pi_max=1.0, kappa=1.0)
    proof = service_gap(law, n_active=13, **given)
    roomy = service_gap(law, n_active=13, **given, pages_short=False)
    assert proof is not None
    assert roomy is not None
    assert server.cut_short == 0
    assert roomy.bound < server.worst_gap <= proof.bound


def test_the_printed_priority_has_no_gap_bound_and_other_laws_no_theory() -> None:
    proof = service_gap(SeedPriority(), **GIVEN)
    assert proof is not None
    assert (proof.holds, proof.bound) == (False, math.inf)
    assert service_gap(ShortestJob(), **GIVEN) is None


@pytest.mark.parametrize("field", ["n_active", "slots", "step_s"])
def test_a_gap_of_nothing_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        service_gap(LAW, **{**GIVEN, field: 0})
