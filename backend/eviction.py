"""Which pages a live request gives up: those that got the least attention, by any head, of late.

Skipping is judged afresh each step, per layer and KV head; eviction is for good and for all of them
at once, so a page's score is the largest share that any of them gave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from backend.pagemass import PageMass
from controllers.core import require
from controllers.serving.eviction import choose
from controllers.serving.messages import Row

RATE = 1 / 64  # weight of the newest token once that many were measured


class PageScores:
    """A moving average, per page of the pool, of what :class:`PageMass` measured at each token.

    The plain mean of the first ``1 / rate`` tokens, exponential after: accumulated attention as in
    H2O (arXiv:2306.14048), which forgets. A page that a sparse row did not read counts as 0 for it.
    With ``informed`` the score is sum of a_i s_i, attention times surprisal in nats (the paper's
    I_b), which needs the surprisal of prompt tokens to be fair to them. A page that a second
    request shares keeps its average; it cannot be given up while it is shared.
    """

    def __init__(self, n_pages: int, *, rate: float = RATE, informed: bool = False) -> None:
        """Start with no page measured."""
        require(0.0 < rate <= 1.0, "rate must lie in (0, 1]", rate=rate)
        self._rate = rate
        self._informed = informed
        self._mean = torch.zeros(n_pages)
        self._tokens = torch.zeros(n_pages)  # measured so far

    def open_pages(
        self, rows: Sequence[Row], pages: Mapping[int, list[int]], page_tokens: int
    ) -> None:
        """Forget the pages that the rows begin: somebody else's score is on them."""
        opened = [
            page
            for row in rows
            for page in pages[row.request_id][
                -(-row.start // page_tokens) : -(-(row.start + row.n_tokens) // page_tokens)
            ]
        ]
        self._mean[opened] = 0.0
        self._tokens[opened] = 0.0

    def observe(
        self, rows: Sequence[Row], pages: Mapping[int, list[int]], measured: PageMass
    ) -> None:
        """Take in what the decode rows of a step measured; a page two of them share counts once."""
        decoding = [row for row in rows if row.samples and row.n_tokens == 1]
        held = [page for row in decoding for page in pages[row.request_id] if page >= 0]
        index = torch.tensor(held, dtype=torch.long)
        now = (measured.information_of if self._informed else measured.of)(held)
        tokens, mean = self._tokens[index] + 1.0, self._mean[index]
        self._tokens[index] = tokens
        self._mean[index] = mean + tokens.reciprocal().clamp_min(self._rate) * (now - mean)

    def evict(
        self, rows: Sequence[Row], pages: Mapping[int, list[int]]
    ) -> dict[int, tuple[int, ...]]:
        """Return, by request, the table indices of the pages that each row gives up."""
        found = {}
        for row in rows:
            if row.evict:
                table = pages[row.request_id]
                found[row.request_id] = choose(self.of(table).numpy(), table, row)
        return found

    def of(self, table: Sequence[int]) -> Tensor:
        """Return the scores of a page table, float32 ``[n]``; 0 where there is a hole."""
        index = torch.tensor(table)
        return torch.where(index >= 0, self._mean[index.clamp_min(0)], 0.0)
