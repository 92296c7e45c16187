"""Eviction: how many pages go, which ones never do, and what a log says of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from controllers.preset import Preset
from controllers.serving import eviction
from controllers.serving.messages import Row
from controllers.serving.pages import HOLE, PageError
from controllers.serving.rows import LogRow, plan_from_row, plan_row, result_from_row, result_row
from controllers.serving.runlog import replay_commands, replay_plans
from tests.serving.paged import PAGE_TOKENS, SharingWorld, held, sharing
from tests.serving.worlds import preset, request, world

BUDGET, BURST = 5, 2


def keeping(budget: int | None = BUDGET, burst: int = BURST, name: str = "baseline") -> Preset:
    return preset(name, kv_budget_pages=budget, kv_burst_pages=burst)


def evicting_world(using: Preset | None = None, **changes: object) -> SharingWorld:
    room = {"n_pages": 40, "max_context": 120, **changes}
    return sharing(world(keeping() if using is None else using, **room))


def test_a_request_gives_up_pages_in_bursts_down_to_its_budget() -> None:
    w = evicting_world()
    w.send(request(0, prompt=40, length=60))
    peak, bursts = [], []
    while w.loop.has_work:
        plan = w.step()
        bursts += [row.evict for row in plan.rows if row.evict]
        if 0 in w.loop.sequences and w.loop.sequences[0].generated > eviction.WARMUP_TOKENS:
            peak.append(w.loop.sequences[0].held)
    assert bursts[0] == (40 + eviction.WARMUP_TOKENS) // PAGE_TOKENS - BUDGET
    assert set(bursts[1:]) == {BURST + 1}
    assert max(peak) == BUDGET + BURST
    assert min(peak) == BUDGET
    assert w.loop.ledger.requests["pages_evicted"].tolist() == [sum(bursts)]
    assert w.loop.ledger.requests["tokens"].tolist() == [60]
    assert held(w.loop) == 0


def test_pins_holes_and_positions_stay() -> None:
    w = evicting_world()
    w.send(request(0, prompt=40, length=60))
    while w.loop.has_work:
        w.step()
        for sequence in w.loop.sequences.values():
            assert sequence.pages[0] != HOLE
            assert HOLE not in sequence.pages[-2:]
            assert sequence.holes == sequence.pages.count(HOLE)
            assert len(sequence.pages) * PAGE_TOKENS >= sequence.computed


def test_pages_given_up_let_a_larger_batch_in() -> None:
    def most_residents(using: Preset) -> int:
        w = evicting_world(using, n_pages=32, max_seqs=6)
        for i in range(6):
            w.send(request(i, prompt=36, length=30), family=i)
        residents = []
        while w.loop.has_work:
            w.step()
            residents.append(len(w.loop.scheduler.running))
        assert w.loop.ledger.counts()["completed"] == 6
        return max(residents)

    assert most_residents(keeping()) > most_residents(keeping(None))


def test_shared_pages_stay_while_they_are_shared() -> None:
    w = evicting_world(burst_of(0))
    w.send(request(0, prompt=48, length=40))
    w.step()
    w.send(request(1, prompt=48, length=14))
    shared: list[int] = []
    while w.loop.has_work:
        w.step()
        if len(w.loop.sequences) == 2 and w.loop.sequences[1].pages:
            shared = shared or w.loop.sequences[1].pages[:9]
            assert w.loop.sequences[0].pages[:9] == w.loop.sequences[1].pages[:9] == shared
        elif w.loop.sequences and shared and w.loop.sequences[0].generated > 20:
            assert HOLE in w.loop.sequences[0].pages[:9]
    assert shared


def burst_of(pages: int) -> Preset:
    return keeping(BUDGET, pages)


def test_an_evicted_prompt_page_can_be_found_by_a_newcomer() -> None:
    w = evicting_world()
    w.send(request(0, prompt=40, length=60))
    while not w.loop.sequences[0].holes:
        w.step()
    w.send(request(1, prompt=40, length=3))
    assert w.step().rows[-1].start == 28
    w.run()  # the executor checks the content


def test_the_kill_switch_and_dense_requests_keep_every_page() -> None:
    w = evicting_world()
    w.send(request(0, prompt=40, length=60, enabled=False))
    w.send(request(1, prompt=40, length=60, min_coverage=1.0), family=1)
    w.run()
    assert w.loop.ledger.requests["pages_evicted"].tolist() == [0, 0]
    w.send(request(2, prompt=40, length=60))
    while not w.loop.sequences[2].holes:
        w.step()
    gone = w.loop.sequences[2].holes
    w.disable(2)
    w.run()
    assert w.loop.ledger.requests["pages_evicted"].tolist()[2] == gone


def test_a_preempted_request_gets_all_its_pages_back_first() -> None:
    w = evicting_world(keeping(4, 0), n_pages=16, max_seqs=2, max_context=60)
    w.send(request(0, prompt=20, length=34))
    w.send(request(1, prompt=20, length=34), family=1)
    whole = 0
    while w.loop.has_work:
        before = {i: s.holes for i, s in w.loop.sequences.items()}
        plan = w.step()
        for row in plan.rows:
            if row.start == 0 and row.request_id in before and row.n_tokens > 20:
                whole += w.loop.sequences[row.request_id].holes == 0
    assert w.loop.ledger.requests["tokens"].tolist() == [34, 34]
    assert w.loop.ledger.requests["pages_evicted"].min() > 0
    assert whole or w.loop.ledger.requests["preemptions"].sum() == 0


@pytest.mark.parametrize(
    "chosen", [(0,), (8, 9), (2, 2), (1, 2, 3, 4, 5), (30,)], ids=lambda c: str(c)
)
def test_a_choice_of_pages_that_must_stay_is_refused_whole(chosen: tuple[int, ...]) -> None:
    w = evicting_world()
    w.send(request(0, prompt=33, length=30))
    w.step()
    sequence, pool = w.loop.sequences[0], w.loop.scheduler.pool
    before = pool.n_free
    with pytest.raises(PageError, match="request 0 may give up 4 pages of its own"):
        eviction.apply(sequence, chosen, Row(0, 33, 1, True, 1.0, False, 4, 1), pool)
    assert pool.n_free == before
    assert sequence.holes == 0


def test_a_shared_page_is_refused_whatever_the_row_says() -> None:
    w = evicting_world()
    w.send(request(0, prompt=33, length=30))
    w.step()
    sequence, pool = w.loop.sequences[0], w.loop.scheduler.pool
    pool.share([sequence.pages[3]])
    with pytest.raises(PageError, match=r"got \[3\]"):
        eviction.apply(sequence, (3,), Row(0, 33, 1, True, 1.0, False, 4, 1), pool)


def test_the_lowest_scores_go_and_holes_are_not_chosen_again() -> None:
    table = [5, 6, HOLE, 8, 9, 10, 11, 12]
    scores = [0.0, 0.4, 0.0, 0.2, 0.1, 0.3, 0.0, 0.0]
    assert eviction.choose(scores, table, Row(0, 31, 1, True, 1.0, False, 2, 1)) == (3, 4)
    assert eviction.choose(scores, table, Row(0, 31, 1, True, 1.0, False, 2, 4)) == (4, 5)


def test_a_budget_below_the_floor_is_refused() -> None:
    with pytest.raises(ValueError, match="kv_budget_pages must be >= 4 or None; got kv_budget"):
        keeping(3)
    with pytest.raises(ValueError, match="kv_burst_pages must be >= 0"):
        keeping(5, -1)


def recorded(using: Preset) -> list[LogRow]:
    rows: list[LogRow] = []
    w = sharing(world(using, sink=rows.append, n_pages=22, max_context=88, stop_share=0.02))
    for i in range(10):
        w.send(request(i, 20 + i, 30 - i, priority=i % 3), family=i % 2)
        w.step()
        if i == 6:
            w.loop.cancel(2, w.now_ns)
            w.disable(3)
    w.run()
    counts = {name: w.loop.ledger.requests[name].sum() for name in ("preemptions", "pages_evicted")}
    assert all(counts.values()), counts
    assert w.loop.ledger.requests["prefix_hit_tokens"].sum() > 100
    return [*rows, {"kind": "end", "now_ns": w.now_ns, "rows": len(rows)}]


@pytest.mark.parametrize("name", ["full", "user_priority"])
def test_a_log_with_hits_and_evictions_replays_exactly(name: str) -> None:
    using = keeping(4, 1, name)
    rows = json.loads(json.dumps(recorded(using)))
    assert replay_plans(rows, using).identical
    assert replay_commands(rows, using).identical
    for row in rows:
        if row["kind"] == "plan":
            assert plan_row(plan_from_row(row), row["now_ns"], row.get("service")) == row
        if row["kind"] == "result":
            assert result_row(result_from_row(row), row["now_ns"]) == row


def test_other_evictions_or_hashes_than_the_logs_are_found() -> None:
    using = keeping(4, 1, "full")
    rows = recorded(using)
    row = next(r for r in rows if "evicted" in r)
    del row["evicted"]
    assert not replay_plans(rows, using).identical
    rows = [{k: v for k, v in r.items() if k != "page_hashes"} for r in recorded(using)]
    assert "start" in replay_plans(rows, using).differing[0].field


def test_another_budget_than_the_logs_is_refused() -> None:
    rows = recorded(keeping(4, 1))
    for other in (keeping(None), keeping(5, 1), keeping(4, 2)):
        with pytest.raises(ValueError, match=r"the preset's kv_b\w+_pages must be the log's"):
            replay_plans(rows, other)


def test_signals_price_the_pages_that_are_held() -> None:
    w = evicting_world()
    w.send(request(0, prompt=40, length=60))
    while not w.loop.sequences[0].holes:
        w.step()
    sequence = w.loop.sequences[0]
    full = replace(sequence, pages=list(range(len(sequence.pages))), holes=0)
    signal = w.loop._load.read([sequence, full], w.now_ns, 50)
    assert signal.pages_held.tolist() == [sequence.held, len(full.pages)]
    assert signal.pages_needed[0] == signal.pages_needed[1]
    saved = sequence.holes * PAGE_TOKENS * w.loop.step_law.per_kv_token_s
    assert signal.token_s[1] - signal.token_s[0] == pytest.approx(saved, rel=1e-3)
    assert np.isfinite(signal.cost_s).all()
