"""Who is served when: order, reservation, quantum, preemption, starvation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from controllers.core import LoadSignal
from controllers.presets import get_preset
from tests.serving.worlds import MS, ByTask, World, preset, request, world


@dataclass(frozen=True, slots=True)
class Counting:
    """First come, first served, and how often it was asked."""

    calls: list[int] = field(default_factory=list)
    reserves: bool = True
    oracle: bool = False

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], np.ndarray]:
        self.calls.append(len(signal.age_s))
        return state, signal.age_s


def first_scheduled_order(w: World) -> list[int]:
    requests = w.loop.ledger.requests
    order = np.argsort(requests["first_scheduled_ns"], kind="stable")
    return requests["request_id"][order].tolist()


def residents(w: World) -> list[int]:
    return list(w.loop.scheduler.running)


def test_baseline_serves_first_come_first() -> None:
    w = world(max_seqs=1)
    for request_id in (3, 1, 2):
        w.submit(request(request_id, length=2))
        w.now_ns += MS
    w.run()
    assert first_scheduled_order(w) == [3, 1, 2]


def test_ties_of_arrival_go_by_request_id() -> None:
    w = world(max_seqs=1)
    w.submit(request(2, length=1), request(1, length=1))
    w.run()
    assert w.loop.ledger.requests["finish_ns"].argmin() == 1


def test_a_long_prompt_is_computed_in_chunks_behind_decode_rows() -> None:
    w = world(n_pages=20)
    w.submit(request(0, prompt=5, length=9))
    w.step()
    w.submit(request(1, prompt=25, length=3))
    sizes = [[(row.request_id, row.n_tokens) for row in w.step().rows] for _ in range(2)]
    assert sizes == [[(0, 1), (1, 15)], [(0, 1), (1, 10)]]


def test_admission_reserves_the_whole_prompt_and_one_token() -> None:
    w = world(n_pages=20)
    w.submit(request(0, prompt=24, length=3))
    w.step()
    assert len(w.loop.sequences[0].pages) == 7


def test_the_priority_law_is_called_only_when_a_decision_is_open() -> None:
    law = Counting()
    w = world(preset(priority=law), max_seqs=2, n_pages=20)
    w.submit(request(0, length=6), request(1, length=6), request(2, length=6))
    w.step()
    assert law.calls == [3]
    for _ in range(4):
        w.step()
    assert law.calls == [3], "nobody can be admitted while both slots are taken"
    w.run()
    assert law.calls == [3, 1]


def blocked_large_head(*, reserves: bool) -> World:
    """A resident fills half the pool, a large head does not fit, a small better one comes."""
    w = world(preset(priority=ByTask(weight=-1.0, reserves=reserves)))
    w.submit(request(0, prompt=20, length=12))
    for _ in range(3):
        w.step()
    w.submit(request(1, prompt=30, length=2))
    w.step()
    w.submit(request(2, prompt=3, length=2))
    return w


def test_a_reserved_head_is_not_bypassed_by_a_better_newcomer() -> None:
    w = blocked_large_head(reserves=True)
    w.step()
    assert w.loop.scheduler.reserved == 1
    assert residents(w) == [0]
    while 0 in w.loop.sequences:
        w.step()
    w.loop.plan(w.now_ns)
    assert residents(w)[0] == 1, "both fit now, and the reserved head enters first"


def test_without_reservation_the_newcomer_goes_first() -> None:
    w = blocked_large_head(reserves=False)
    w.step()
    assert first_scheduled_order(w)[-1] == 2
    assert residents(w) == [0, 2]


def test_cancelling_the_reserved_head_opens_the_line() -> None:
    w = blocked_large_head(reserves=True)
    w.loop.cancel(1, w.now_ns)
    w.step()
    assert residents(w) == [0, 2]


def test_nobody_behind_a_blocked_head_is_admitted() -> None:
    w = world()
    w.submit(request(0, prompt=20, length=12))
    w.step()
    w.submit(request(1, prompt=30, length=2), request(2, prompt=3, length=2))
    w.step()
    assert residents(w) == [0]


@pytest.mark.parametrize("quantum", [None, 4])
def test_aging_ends_starvation_under_steady_arrivals(quantum: int | None) -> None:
    w, steps = steady_arrivals(kappa=1000.0, quantum=quantum)
    assert steps < 200
    assert w.loop.ledger.requests["tokens"][0] == 2


@pytest.mark.parametrize("quantum", [None, 4])
def test_a_law_without_aging_starves_the_old_request(quantum: int | None) -> None:
    w, steps = steady_arrivals(kappa=0.0, quantum=quantum)
    assert steps == 200
    assert w.loop.ledger.requests["first_scheduled_ns"][0] == -1


def steady_arrivals(*, kappa: float, quantum: int | None) -> tuple[World, int]:
    """Serve short prompts for ever beside one long one that ranks below them; steps it took."""
    law = ByTask(weight=-1.0, kappa=kappa)
    w = world(preset(priority=law, quantum_tokens=quantum), max_seqs=2)
    w.submit(request(0, prompt=24, length=2))
    steps = 0
    while 0 in w.loop.sequences and steps < 200:
        while len(w.loop.sequences) < 6:
            w.submit(request(1 + len(w.loop.ledger.requests), prompt=3, length=4))
        w.step()
        steps += 1
    return w, steps


def test_an_expired_resident_gives_way_to_strictly_higher_priority() -> None:
    w = world(preset(priority=ByTask(kappa=1.0), quantum_tokens=3), max_seqs=1)
    w.submit(request(0, prompt=3, length=9), request(1, prompt=3, length=9))
    who = [plan.rows[0].request_id for plan in w.run() if plan.sampled]
    assert who == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3


def test_a_resident_keeps_its_slot_until_its_quantum_is_used() -> None:
    w = world(preset(priority=ByTask(weight=1.0), quantum_tokens=4), max_seqs=1)
    w.submit(request(0, prompt=3, length=9))
    w.step()
    w.submit(request(1, prompt=12, length=2))
    plans = [w.step() for _ in range(4)]
    assert [plan.rows[0].request_id for plan in plans] == [0, 0, 0, 1]
    assert plans[-1].preempted == (0,)


def test_equal_priority_displaces_nobody() -> None:
    w = world(preset(priority=ByTask(), quantum_tokens=1), max_seqs=1)
    w.submit(request(0, length=6), request(1, length=6))
    assert all(not plan.preempted for plan in w.run())


def test_the_wait_restarts_after_a_full_quantum() -> None:
    w = world(preset(priority=ByTask(kappa=1.0), quantum_tokens=3), max_seqs=1)
    w.submit(request(0, prompt=3, length=9), request(1, prompt=3, length=9))
    w.step()
    assert w.loop.sequences[0].wait_since_ns == 0
    w.step()
    w.step()
    assert w.loop.sequences[0].wait_since_ns == w.now_ns
    displaced_ns = w.now_ns
    w.step()
    assert residents(w) == [1]
    assert w.loop.sequences[0].wait_since_ns == displaced_ns


def short_of_pages(quantum: int | None = None) -> tuple[World, list[int]]:
    """Two residents outgrow the pool; run to the first preemption."""
    w = world(preset(quantum_tokens=quantum), n_pages=8)
    w.submit(request(0, prompt=8, length=20))
    w.now_ns += MS
    w.submit(request(1, prompt=8, length=20))
    for _ in range(40):
        before = residents(w)
        plan = w.step()
        if plan.preempted:
            assert {row.request_id for row in plan.rows} <= set(before), "admitted while short"
            return w, list(plan.preempted)
    raise AssertionError("the pool never bound")


def test_memory_takes_the_lowest_priority_resident() -> None:
    w, preempted = short_of_pages()
    assert preempted == [1]
    assert w.loop.sequences[1].pages == []
    assert w.loop.sequences[1].computed == 0
    w.run()
    assert w.loop.ledger.requests["tokens"].tolist() == [20, 20]


def test_an_early_memory_preemption_keeps_the_old_wait() -> None:
    w, _ = short_of_pages()
    assert w.loop.sequences[1].wait_since_ns == MS


def test_a_memory_preemption_after_a_full_quantum_restarts_the_wait() -> None:
    w, preempted = short_of_pages(quantum=2)
    lost = w.loop.sequences[preempted[0]]
    assert lost.wait_since_ns == w.loop.ledger.steps["now_ns"][-1]


def test_a_preempted_request_goes_on_with_its_next_token() -> None:
    w, _ = short_of_pages()
    generated = w.loop.sequences[1].generated
    w.run()
    tokens = w.loop.ledger.tokens
    assert 0 < generated < 20
    assert tokens["position"][tokens["request_id"] == 1].tolist() == list(range(20))


def test_rows_read_sparsely_only_where_the_rules_allow() -> None:
    base = get_preset("attention")
    w = world(preset("attention", probe_every=4, sparse_min_context=10), n_pages=20)
    w.submit(request(3, prompt=7, length=12, temperature=0.0), request(4, enabled=False))
    seen = {3: [], 4: []}
    while w.loop.has_work:
        for row in w.step().rows:
            seen[row.request_id].append((row.coverage < 1.0, row.probe))
    # Prompt row, two rows below the shortest sparse context, then a probe when 3 + t is 4k.
    dense, sparse, probe = (False, False), (True, False), (False, True)
    assert seen[3] == [dense] * 3 + [sparse, sparse, probe] + [sparse] * 3 + [probe] + [sparse] * 2
    assert set(seen[4]) == {dense}
    assert base.sparse_min_context == 512


def test_the_kill_switch_makes_the_next_row_dense() -> None:
    w = world(preset("attention", probe_every=0))
    w.submit(request(0))
    w.step()
    assert w.step().rows[0].coverage < 1.0
    w.disable(0)
    assert w.step().rows[0].coverage == 1.0
    assert not w.loop.sequences[0].request.enabled


def test_a_readmitted_request_has_a_whole_new_quantum() -> None:
    w = world(preset(priority=ByTask(weight=1.0), quantum_tokens=2), max_seqs=1)
    w.submit(request(0, prompt=3, length=9))
    w.step()
    w.submit(request(1, prompt=12, length=1))
    plans = [w.step() for _ in range(3)]
    w.submit(request(2, prompt=12, length=1))
    plans += [w.step() for _ in range(2)]
    assert [plan.rows[0].request_id for plan in plans] == [0, 1, 0, 0, 2]
