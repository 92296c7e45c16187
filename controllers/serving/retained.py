"""What free pages still hold of requests that were preempted: vLLM's prefix cache for one's own KV.

An engine with prefix caching takes pages from those freed longest ago, and of pages freed together
the last first. A preempted request that comes back finds the front of its KV, as far as nobody has
taken it. Pages of finished requests stand in the same line. Which page is whose need not be known:
counts in the order of freeing say it all, and growth may be told late, all at once.
"""

from __future__ import annotations

from collections import deque

from controllers.serving.limits import EngineLimits
from controllers.serving.request import Sequence

NOBODY = -1  # whose pages nobody will look for


class Retained:
    """Free pages, those freed longest ago first: ``[owner, pages left, pages of use]``."""

    __slots__ = ("_line", "_of", "_page_tokens", "_total")

    def __init__(self, limits: EngineLimits) -> None:
        n_pages = limits.n_pages
        self._page_tokens = limits.page_tokens
        self._line: deque[list[int]] = deque([[NOBODY, n_pages, 0]])
        self._of: dict[int, list[int]] = {}
        self._total = n_pages

    def preempted(self, sequence: Sequence) -> None:
        """Keep the pages that a request is about to free; their front is of use to it."""
        full = sequence.computed // self._page_tokens
        self.give(sequence.request.request_id, len(sequence.pages), full)

    def left(self, sequence: Sequence) -> None:
        """Take note that a request goes for good, and of the pages it is about to free."""
        self.forget(sequence.request.request_id)
        self.give(NOBODY, len(sequence.pages), 0)

    def found(self, sequence: Sequence, n_free: int) -> int:
        """Return the tokens that a request finds as it comes back, and take their pages out.

        One known token at least is left to compute: the next is sampled from its row.
        """
        most = (sequence.known - 1) // self._page_tokens
        return self._page_tokens * self.take(sequence.request.request_id, most, n_free)

    def give(self, owner: int, pages: int, useful: int) -> None:
        """Put freed pages at the end; the first ``useful`` of them hold KV that owner may find."""
        if not pages:
            return
        entry = [owner, pages, useful]
        self._line.append(entry)
        self._total += pages
        if owner != NOBODY:
            self._of[owner] = entry

    def take(self, owner: int, most: int, n_free: int) -> int:
        """Return the pages that ``owner`` finds, at most ``most``, and take these out.

        ``n_free`` are free now, these included; what is missing in the line was taken since.
        """
        self._settle(n_free)
        entry = self._of.pop(owner, None)
        if entry is None:
            return 0
        found = min(entry[1], entry[2], most)
        entry[0], entry[1], entry[2] = NOBODY, entry[1] - found, 0
        self._total -= found
        return found

    def forget(self, owner: int) -> None:
        """Let nobody find the pages of a request that left."""
        entry = self._of.pop(owner, None)
        if entry is not None:
            entry[0], entry[2] = NOBODY, 0

    def _settle(self, n_free: int) -> None:
        line = self._line
        while self._total > n_free:
            entry = line[0]
            taken = min(entry[1], self._total - n_free)
            entry[1] -= taken
            self._total -= taken
            if not entry[1]:
                line.popleft()
                if entry[0] != NOBODY:
                    del self._of[entry[0]]
