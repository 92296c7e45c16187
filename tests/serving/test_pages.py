"""The page pool against a model of plain lists: counts, names, and the order of reclaiming."""

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
        self.names: dict[int, int] = {}
        self.idle: list[int] = []  # free pages with a name, least recently freed first

    def _plain(self, n: int) -> list[int]:
        """Return the free pages without a name, after reclaiming enough to give ``n``."""
        named = set(self.idle)
        free = [page for page, count in enumerate(self.counts) if not count and page not in named]
        while self.idle and len(free) < n:
            page = self.idle.pop(0)
            del self.names[page]
            free.append(page)
        return sorted(free)

    def _hold(self, page: int) -> None:
        self.counts[page] += 1
        if page in self.idle:
            self.idle.remove(page)

    @rule(target=tables, n=st.integers(0, N_PAGES + 1))
    def allocate(self, n: int) -> list[int]:
        pages = self.pool.allocate(n)
        if n > self.counts.count(0):
            assert pages is None
            return []
        free = self._plain(n)
        runs = [p for p in free if all(q in free for q in range(p, p + n))]
        assert pages is not None
        assert pages == (list(range(runs[0], runs[0] + n)) if runs and n else free[:n])
        for page in pages:
            self.counts[page] = 1
        return pages

    @rule(table=tables)
    def extend(self, table: list[int]) -> None:
        free = self._plain(1)
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

    @rule(table=tables, names=st.lists(st.integers(0, 9), max_size=3))
    def publish(self, table: list[int], names: list[int]) -> None:
        for page, name in zip(table, names, strict=False):
            if page not in self.names:
                self.pool.publish(page, name)
                if name not in self.names.values():
                    self.names[page] = name

    @rule(target=tables, names=st.lists(st.integers(0, 9), max_size=3))
    def find_and_share(self, names: list[int]) -> list[int]:
        pages = {name: page for page, name in self.names.items()}
        known = [name in pages for name in names]
        found = self.pool.find(names)
        assert found == [pages[name] for name in names[: [*known, False].index(False)]]
        self.pool.share(found)
        for page in found:
            self._hold(page)
        return found

    @rule(names=st.lists(st.integers(0, 9), max_size=3))
    def withdraw(self, names: list[int]) -> None:
        self.pool.withdraw(names)
        for page in [page for page, name in self.names.items() if name in names]:
            del self.names[page]
            if page in self.idle:
                self.idle.remove(page)

    @rule(table=consumes(tables))
    def free(self, table: list[int]) -> None:
        self.pool.free(table)
        freed = []
        for page in table:
            self.counts[page] -= 1
            freed += [page] if not self.counts[page] and page in self.names else []
        self.idle += reversed(freed)

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.pool.check()
        assert [self.pool.references(page) for page in range(N_PAGES)] == self.counts
        assert self.pool.n_free == self.counts.count(0)
        assert self.pool.n_reclaimable == len(self.idle)
        assert all(self.pool.find([name]) == [page] for page, name in self.names.items())


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
