"""The page pool: which KV pages are free, and who shares the others.

A page is a block of token positions of one request across all layers and heads. Pages of one
request are kept in contiguous extents where possible: extents read faster than gathers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from controllers.core import require

_FREE = b"\x01"


class PageError(RuntimeError):
    """A page was freed or shared that nobody holds."""


class PagePool:
    """``n_pages`` reference-counted pages, numbered from 0.

    The free map is one byte per page, so first fit is a substring search at C speed: exact,
    and microseconds for 10^5 pages. Not thread-safe; the loop owns it.
    """

    __slots__ = ("_free", "_low", "_references", "n_free", "n_pages")

    def __init__(self, n_pages: int) -> None:
        require(n_pages >= 1, "n_pages must be >= 1", n_pages=n_pages)
        self.n_pages = n_pages
        self.n_free = n_pages
        self._free = bytearray(_FREE * n_pages)
        self._references = array("l", bytes(array("l").itemsize * n_pages))
        self._low = 0  # no page below is free

    @property
    def n_held(self) -> int:
        """Pages with at least one reference."""
        return self.n_pages - self.n_free

    def allocate(self, n: int) -> list[int] | None:
        """Take ``n`` pages, or none at all if fewer are free (then ``None``).

        The lowest contiguous run of ``n`` if there is one; the lowest free pages otherwise.
        """
        require(n >= 0, "n must be >= 0", n=n)
        if n > self.n_free:
            return None
        if n == 0:
            return []
        start = self._free.find(_FREE * n, self._low)
        pages = list(range(start, start + n)) if start >= 0 else self._lowest(n)
        self._take(pages)
        return pages

    def extend(self, pages: list[int]) -> bool:
        """Append one page to the table ``pages``; False, and no change, when none is free.

        The page after the last one if it is free, so that the extent grows; else first fit.
        """
        if self.n_free == 0:
            return False
        page = pages[-1] + 1 if pages else self.n_pages
        if page >= self.n_pages or not self._free[page]:
            page = self._free.find(_FREE, self._low)
        self._take([page])
        pages.append(page)
        return True

    def share(self, pages: Iterable[int]) -> None:
        """Add one reference to each page; each must be held."""
        listed = list(pages)
        for page in listed:
            if not self.references(page):
                raise PageError(f"page {page} is shared but nobody holds it")
        for page in listed:
            self._references[page] += 1

    def free(self, pages: Iterable[int]) -> None:
        """Drop one reference from each page; a page with none left becomes free."""
        for page in pages:
            count = self.references(page)
            if not count:
                raise PageError(f"page {page} is freed but nobody holds it")
            self._references[page] = count - 1
            if count == 1:
                self._free[page] = 1
                self.n_free += 1
                self._low = min(self._low, page)

    def references(self, page: int) -> int:
        """Return how many hold ``page``."""
        if not 0 <= page < self.n_pages:
            raise PageError(f"page {page} is outside the pool of {self.n_pages}")
        return self._references[page]

    def check(self) -> None:
        """Assert that the free map, the counts and ``n_free`` agree (INV-1)."""
        assert self.n_free == sum(self._free), "n_free disagrees with the free map"
        for page, count in enumerate(self._references):
            assert count >= 0, f"page {page} has {count} references"
            assert (count == 0) == bool(self._free[page]), f"page {page} is both free and held"
        assert not any(self._free[: self._low]), "a free page lies below the low mark"

    def _lowest(self, n: int) -> list[int]:
        pages, page = [], self._low - 1
        for _ in range(n):
            page = self._free.find(_FREE, page + 1)
            pages.append(page)
        return pages

    def _take(self, pages: list[int]) -> None:
        for page in pages:
            self._free[page] = 0
            self._references[page] = 1
        self.n_free -= len(pages)
        if pages[0] == self._low:
            low = self._free.find(_FREE, self._low)
            self._low = low if low >= 0 else self.n_pages
