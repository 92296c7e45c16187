"""Prefix caching: who finds which pages, what is counted, and what is never shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.pages import PageError, PagePool
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request
from tests.serving.paged import PAGE_TOKENS, PagedExecutor, SharingWorld, held, sharing
from tests.serving.worlds import preset, request, world


def shared_world(**changes: object) -> SharingWorld:
    return sharing(world(**{"n_pages": 24, "stop_share": 0.0, **changes}))


def paged(w: SharingWorld) -> PagedExecutor:
    assert isinstance(w.executor, PagedExecutor)
    return w.executor


def hit(w: SharingWorld, request_id: int, column: str = "prefix_hit_tokens") -> int:
    ledger = w.loop.ledger
    return int(ledger.requests[column][ledger.row_of[request_id]])


@given(
    tokens=st.lists(st.integers(0, 2**31), max_size=40),
    page=st.integers(1, 7),
    cut=st.integers(0, 40),
)
def test_equal_beginnings_have_equal_names_and_no_others(
    tokens: list[int], page: int, cut: int
) -> None:
    names = page_hashes(tokens, page, "model")
    assert len(names) == len(tokens) // page
    assert page_hashes(tokens[:cut], page, "model") == names[: min(cut, len(tokens)) // page]
    assert len(set(names)) == len(names)
    changed = [*tokens]
    if cut < len(names) * page:
        changed[cut] += 1
        other = page_hashes(changed, page, "model")
        same = [a == b for a, b in zip(names, other, strict=True)]
        assert same == [i < cut // page for i in range(len(names))]


def test_another_model_or_page_size_gives_other_names() -> None:
    tokens = list(range(8))
    assert not set(page_hashes(tokens, 4, "a")) & set(page_hashes(tokens, 4, "b"))
    assert not set(page_hashes(tokens, 4, "a")) & set(page_hashes(tokens, 8, "a"))


def test_a_hash_per_full_page_or_none_is_asked_for() -> None:
    w = world()
    with pytest.raises(ValueError, match=r"one hash per full prompt page, 2, or none.*page_hashes"):
        w.loop.submit(request(0, prompt=9), 0, page_hashes=(1,))


def test_a_second_request_finds_the_pages_of_the_first() -> None:
    w = shared_world()
    w.send(request(0, prompt=16, length=2))
    w.run()
    assert held(w.loop) == 0
    w.send(request(1, prompt=16, length=2))  # three quarters are the family's
    assert w.step().rows[0].start == 12
    assert (hit(w, 0), hit(w, 1)) == (0, 12)
    w.run()
    assert paged(w).read_back == 12


def test_requests_that_run_at_once_share_what_was_computed_at_admission() -> None:
    w = shared_world()
    w.send(request(0, prompt=16, length=9))
    w.step()
    w.send(request(1, prompt=16, length=9))
    w.step()
    first, second = (w.loop.sequences[i].pages for i in (0, 1))
    assert first[:3] == second[:3]
    assert set(first[3:]).isdisjoint(second[3:])
    assert held(w.loop) == len({*first, *second})
    w.loop.cancel(0, w.now_ns)
    w.loop.check()
    w.run()  # the executor checks that the shared pages still hold what they held


def test_a_prompt_known_in_full_still_computes_one_token() -> None:
    w = shared_world()
    for request_id, start in ((0, 0), (1, 12)):
        r = request(request_id, prompt=16, length=1)
        paged(w).prompts[request_id] = [7] * 16
        paged(w).requests[request_id] = r
        w.loop.submit(r, w.now_ns, page_hashes=page_hashes([7] * 16, PAGE_TOKENS, "kv"))
        row = w.step().rows[0]
        assert (row.start, row.n_tokens, row.samples) == (start, 16 - start, True)


@pytest.mark.parametrize(("n_pages", "found"), [(10, 12), (8, 4)])  # eight leave it one page
def test_a_preempted_request_finds_its_own_pages_again(n_pages: int, found: int) -> None:
    w = shared_world(n_pages=n_pages, max_seqs=2)
    w.send(request(0, prompt=12, length=14))
    w.send(request(1, prompt=12, length=14), family=1)
    w.run()
    ledger = w.loop.ledger
    assert ledger.requests["preemptions"].tolist() == [0, 1]
    assert hit(w, 1, "rehit_tokens") == found
    assert hit(w, 1) == 0
    assert w.loop.ledger.requests["tokens"].tolist() == [14, 14]


def test_reclaimable_pages_are_not_counted_twice_at_admission() -> None:
    w = shared_world(n_pages=6, max_seqs=2)
    w.send(request(0, prompt=16, length=1))  # five pages, of which three will be found
    w.run()
    w.send(request(1, prompt=16, length=4))
    w.send(request(2, prompt=3, length=4), family=1)
    plan = w.step()
    assert [row.request_id for row in plan.rows] == [1, 2]
    assert w.loop.scheduler.pool.n_free == 0


def test_pages_are_reclaimed_least_recently_used_first_and_tail_first() -> None:
    pool = PagePool(4)
    old, new = pool.allocate(2), pool.allocate(2)
    assert old is not None
    assert new is not None
    for page, name in zip([*old, *new], range(4), strict=True):
        pool.publish(page, name)
    pool.free(old)
    pool.free(new)
    assert (pool.n_free, pool.n_reclaimable) == (4, 4)
    assert pool.allocate(1) == [old[1]]
    assert pool.find([0, 1]) == [old[0]]
    pool.share(pool.find([0]))
    pool.free([old[0]])  # used again, so the other prefix goes first
    assert pool.allocate(2) == new
    assert pool.find([0]) == [old[0]]
    assert pool.find([2, 3]) == []
    pool.check()


def test_a_page_has_one_hash_and_a_hash_one_page() -> None:
    pool = PagePool(3)
    pages = pool.allocate(2)
    assert pages is not None
    pool.publish(pages[0], 5)
    pool.publish(pages[1], 5)
    assert pool.find([5]) == [pages[0]]
    with pytest.raises(PageError, match="page 0 is already published"):
        pool.publish(pages[0], 6)
    with pytest.raises(PageError, match="page 2 is published but nobody holds it"):
        pool.publish(2, 7)
    pool.check()


def test_a_failed_request_is_not_shared() -> None:
    w = shared_world()
    w.executor.fail_share = 1.0
    w.send(request(0, prompt=16, length=2))
    w.run()
    assert w.loop.ledger.reasons == ["nonfinite_logits"]
    assert w.loop.scheduler.pool.n_reclaimable == 0
    w.executor.fail_share = 0.0
    w.send(request(1, prompt=16, length=2))
    assert w.step().rows[0].start == 0


def test_nor_is_a_page_that_the_failed_request_had_given_up() -> None:
    using = preset(kv_budget_pages=4, kv_burst_pages=0)
    w = sharing(world(using, n_pages=40, max_context=80))
    w.executor.stop_share = 0.0
    w.send(request(0, prompt=32, length=40))
    while not w.loop.sequences[0].holes:
        w.step()
    assert w.loop.scheduler.pool.n_reclaimable > 0
    w.executor.fail_share = 1.0
    w.run()
    assert w.loop.scheduler.pool.n_reclaimable == 0
    w.loop.check()


def test_pages_are_found_while_their_owner_still_prefills() -> None:
    w = shared_world(token_budget=8)
    w.send(request(0, prompt=30, length=2))
    w.step()
    w.send(request(1, prompt=30, length=2))
    w.run()
    assert hit(w, 1) > 0


def test_only_full_pages_can_be_found() -> None:
    w = shared_world(token_budget=6)
    w.send(request(0, prompt=31, length=2))
    sequence, found = w.loop.sequences[0], []
    while not sequence.generated:
        w.step()
        found.append(len(w.loop.scheduler.pool.find(sequence.page_hashes)))
    assert found == [1, 3, 4, 6, 7, 7]


def test_a_page_that_a_victim_shares_with_the_newcomer_is_room_only_once() -> None:
    using = preset("user_priority", quantum_tokens=1)
    w = sharing(world(using, n_pages=12, max_seqs=3))
    w.send(request(0, prompt=16, length=9, priority=6))  # the first to go; five pages
    w.step()
    w.send(request(1, prompt=8, length=9, priority=5), family=1)  # three
    w.step()
    assert w.loop.scheduler.pool.n_free == 4
    w.send(request(2, prompt=36, length=2, priority=0))  # ten, three of which request 0 has
    plan = w.step()
    assert plan.preempted == (0, 1)
    assert plan.rows[0].start == 12
    w.run()
    assert w.loop.ledger.counts()["completed"] == 3


def test_without_hashes_nothing_is_remembered() -> None:
    w = world()
    w.submit(request(0, prompt=16, length=2))
    w.run()
    assert w.loop.scheduler.pool.n_reclaimable == 0


def test_a_displaced_sharer_makes_room_only_for_what_it_held_alone() -> None:
    def asked(request_id: int, prompt: int, rank: int) -> Request:
        return request(request_id, prompt, length=9, priority=rank)

    using = preset("user_priority", quantum_tokens=1)
    w = sharing(world(using, n_pages=9, max_seqs=3))
    w.send(asked(0, 16, 5))
    w.step()
    w.send(asked(1, 16, 5))
    w.step()
    w.step()
    free = w.loop.scheduler.pool.n_free
    w.send(asked(2, 24, 0), family=1)
    w.step()
    w.loop.check()
    assert 2 in w.loop.scheduler.running
    assert free < 7  # it did not fit before
    w.run()
