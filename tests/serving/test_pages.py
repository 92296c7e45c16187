"""The page pool against a model that is a plain list of counts."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from controllers.serving.pages import PageError, PagePool

N_PAGES = 12


class PoolMachine(RuleBasedStateMachine):
    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(N_PAGES)
        self.counts = [0] * N_PAGES

    @rule(target=tables, n=st.integers(0, N_PAGES + 1))
    def allocate(self, n: int) -> list[int]:
        free = [page for page, count in enumerate(self.counts) if count == 0]
        runs = [p for p in free if all(q in free for q in range(p, p + n))]
        pages = self.pool.allocate(n)
        if n > len(free):
            assert pages is None
            return []
        assert pages is not None
        assert pages == (list(range(runs[0], runs[0] + n)) if runs and n else free[:n])
        for page in pages:
            self.counts[page] = 1
        return pages

    @rule(table=tables)
    def extend(self, table: list[int]) -> None:
        free = [page for page, count in enumerate(self.counts) if count == 0]
        follows = table[-1] + 1 if table else None
        before = list(table)
        assert self.pool.extend(table) == bool(free)
        if free:
            expected = follows if follows in free else free[0]
            assert table == [*before, expected]
            self.counts[expected] = 1
        else:
            assert table == before

    @rule(target=tables, table=tables)
    def share(self, table: list[int]) -> list[int]:
        self.pool.share(table)
        for page in table:
            self.counts[page] += 1
        return list(table)

    @rule(table=consumes(tables))
    def free(self, table: list[int]) -> None:
        self.pool.free(table)
        for page in table:
            self.counts[page] -= 1

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.pool.check()
        assert [self.pool.references(page) for page in range(N_PAGES)] == self.counts
        assert self.pool.n_free == self.counts.count(0)


PoolMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestPagePoolConservesPages = PoolMachine.TestCase


def test_a_page_freed_twice_is_a_typed_error() -> None:
    pool = PagePool(4)
    pages = pool.allocate(2)
    assert pages is not None
    pool.free(pages)
    with pytest.raises(PageError, match="page 0 is freed"):
        pool.free(pages)


def test_a_free_page_cannot_be_shared() -> None:
    with pytest.raises(PageError, match="page 1 is shared"):
        PagePool(4).share([1])


def test_a_page_outside_the_pool_is_refused() -> None:
    with pytest.raises(PageError, match="outside the pool of 4"):
        PagePool(4).free([-1])


def test_a_broken_pool_fails_its_check() -> None:
    pool = PagePool(4)
    pool.allocate(2)
    pool.n_free += 1
    with pytest.raises(AssertionError, match="n_free"):
        pool.check()
