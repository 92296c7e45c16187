"""The page pool: which KV pages are free, who shares the others, and which content can be found.

A page is a block of token positions of one request across all layers and heads. Pages of one
request are kept in contiguous extents where possible: extents read faster than gathers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from controllers.core import require

HOLE = -1  # an entry of a page table whose page was evicted; its token positions stay counted
_FREE = b"\x01"


class PageError(RuntimeError):
    """A page was freed, shared or published that nobody holds."""


class PagePool:
    """``n_pages`` reference-counted pages, numbered from 0.

    The free map is one byte per page, so first fit is a substring search at C speed: exact,
    and microseconds for 10^5 pages. A page published under a hash stays findable when it is freed:
    it counts as free, and is reclaimed (least recently freed first) only when no other page is
    left, which is when it loses its hash. Not thread-safe; the loop owns it.
    """

    __slots__ = (
        "_free",
        "_hashes",
        "_low",
        "_named",
        "_reclaimable",
        "_references",
        "n_free",
        "n_pages",
    )

    def __init__(self, n_pages: int) -> None:
        require(n_pages >= 1, "n_pages must be >= 1", n_pages=n_pages)
        self.n_pages = n_pages
        self.n_free = n_pages
        self._free = bytearray(_FREE * n_pages)  # 0 where held or reclaimable
        self._references = array("l", bytes(array("l").itemsize * n_pages))
        self._low = 0  # no page below is free without a hash
        self._hashes: dict[int, int] = {}  # page -> hash of its content and all before it
        self._named: dict[int, int] = {}  # hash -> page
        self._reclaimable: dict[int, None] = {}  # free pages with a hash, least recent first

    @property
    def n_held(self) -> int:
        """Pages with at least one reference."""
        return self.n_pages - self.n_free

    @property
    def n_reclaimable(self) -> int:
        """Free pages whose content can still be found."""
        return len(self._reclaimable)

    def allocate(self, n: int) -> list[int] | None:
        """Take ``n`` pages, or none at all if fewer are free (then ``None``).

        The lowest contiguous run of ``n`` if there is one; the lowest free pages otherwise.
        Reclaimable pages are touched only if the others do not suffice.
        """
        require(n >= 0, "n must be >= 0", n=n)
        if n > self.n_free:
            return None
        if n == 0:
            return []
        self._reclaim(n)
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
        self._reclaim(1)
        page = pages[-1] + 1 if pages else self.n_pages
        if page >= self.n_pages or not self._free[page]:
            page = self._free.find(_FREE, self._low)
        self._take([page])
        pages.append(page)
        return True

    def share(self, pages: Iterable[int]) -> None:
        """Add one reference to each page; each must be held or reclaimable."""
        listed = list(pages)
        for page in listed:
            if not self.references(page) and page not in self._reclaimable:
                raise PageError(f"page {page} is shared but nobody holds it")
        for page in listed:
            if page in self._reclaimable:
                del self._reclaimable[page]
                self.n_free -= 1
            self._references[page] += 1

    def free(self, pages: Iterable[int]) -> None:
        """Drop one reference from each page; a page with none left becomes free.

        Of pages freed together the last is reclaimed first: a prefix is found from its front.
        """
        findable: list[int] = []
        for page in pages:
            count = self.references(page)
            if not count:
                raise PageError(f"page {page} is freed but nobody holds it")
            self._references[page] = count - 1
            if count > 1:
                continue
            self.n_free += 1
            if page in self._hashes:
                findable.append(page)
            else:
                self._release(page)
        self._reclaimable.update(dict.fromkeys(reversed(findable)))

    def publish(self, page: int, content: int) -> None:
        """Make a held page findable under the hash ``content``; the first page of a hash keeps it.

        Its content must not change while it has a hash.
        """
        if not self.references(page):
            raise PageError(f"page {page} is published but nobody holds it")
        if self._hashes.get(page, content) != content:
            raise PageError(f"page {page} is already published under another hash")
        if content not in self._named:
            self._named[content] = page
            self._hashes[page] = content

    def withdraw(self, contents: Iterable[int]) -> None:
        """Forget hashes, so that nobody finds their pages any more; unknown ones are ignored."""
        for content in contents:
            page = self._named.pop(content, None)
            if page is None:
                continue
            del self._hashes[page]
            if page in self._reclaimable:
                del self._reclaimable[page]
                self._release(page)

    def find(self, contents: Sequence[int]) -> list[int]:
        """Return the pages of the longest known prefix of the chained hashes ``contents``."""
        found: list[int] = []
        for content in contents:
            page = self._named.get(content)
            if page is None:
                break
            found.append(page)
        return found

    def references(self, page: int) -> int:
        """Return how many hold ``page``."""
        if not 0 <= page < self.n_pages:
            raise PageError(f"page {page} is outside the pool of {self.n_pages}")
        return self._references[page]

    def check(self) -> None:
        """Assert that free map, counts, hashes and ``n_free`` agree (INV-1)."""
        idle = self._reclaimable
        assert self.n_free == sum(self._free) + len(idle), "n_free disagrees with the free map"
        for page, count in enumerate(self._references):
            assert count >= 0, f"page {page} has {count} references"
            free = bool(self._free[page])
            assert (count == 0) == (free or page in idle), f"page {page} is both free and held"
            assert not (free and page in self._hashes), f"page {page} is free and has a hash"
        assert not any(self._free[: self._low]), "a free page lies below the low mark"
        assert all(page in self._hashes for page in idle), "a reclaimable page has no hash"
        assert self._named == {name: page for page, name in self._hashes.items()}, "hashes differ"

    def _reclaim(self, n: int) -> None:
        """Turn reclaimable pages into plain free ones until ``n`` of those are there."""
        missing = n - (self.n_free - len(self._reclaimable))
        for _ in range(missing):
            page = next(iter(self._reclaimable))
            del self._reclaimable[page]
            del self._named[self._hashes.pop(page)]
            self._release(page)

    def _release(self, page: int) -> None:
        self._free[page] = 1
        self._low = min(self._low, page)

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
