"""The surprisal of every token: sampled ones as they come, prompt tokens in chunks where asked.

A token's surprisal is -ln p at T = 1 under the model that reads or wrote it, given what precedes
it; the first token of a prompt has none (NaN). It enters the cache with the token's K and V, where
page scores and the prefix cache find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backend.cache import PagedCache
from backend.errors import UnsupportedModel
from backend.sensors import row_stats
from controllers.serving.messages import Row
from controllers.serving.request import Request

BLOCK_ROWS = 1024  # rows of logits held at once: 192 MiB at 49,152 tokens
HEAD_TOLERANCE = 1e-3  # relative; products of other widths round differently


class PromptScore(NamedTuple):
    """What is known of a prompt's likelihood."""

    nats: float  # sum of -ln p over the tokens scored
    tokens: int  # how many were: all but the first, less those a prefix hit made unknown


class TokenSurprisal:
    """Keeps each request's surprisals by position and brings them to the cache."""

    def __init__(self, cache: PagedCache) -> None:
        self._cache = cache
        self._prompts: dict[int, int] = {}  # prompt length by request
        self._known: dict[int, np.ndarray] = {}  # float32 by position, NaN where unknown
        self._seen: dict[int, int] = {}  # positions below it have been in a row, or adopted

    def add(self, request: Request) -> None:
        """Make room for a request."""
        key, prompt = request.request_id, request.prompt_tokens
        self._prompts[key] = prompt
        self._known[key] = np.full(prompt + request.max_tokens, np.nan, np.float32)
        self._seen[key] = 0

    def release(self, request_id: int) -> None:
        """Forget a request; one that is not held is left alone."""
        for held in (self._prompts, self._known, self._seen):
            held.pop(request_id, None)

    def store(self, rows: Sequence[Row], slots: Tensor) -> None:
        """Write what is known of the rows' tokens to their slots ``[N]``."""
        values = [self._known[r.request_id][r.start : r.start + r.n_tokens] for r in rows]
        self._cache.store_surprisal(slots, torch.from_numpy(np.concatenate(values)))

    def adopt(self, rows: Sequence[Row], pages: Mapping[int, list[int]]) -> None:
        """Take over the surprisals of prompt tokens that a prefix hit spares these rows."""
        size = self._cache.page_tokens
        for row in rows:
            key = row.request_id
            first, end = self._seen[key], row.start + row.n_tokens
            if row.start > first:
                page = first // size
                table = torch.tensor(pages[key][page : -(-row.start // size)])
                found = self._cache.surprisal[table.to(self._cache.device)].cpu()
                found[table < 0] = np.nan  # an evicted page
                found = found.view(-1)[first - page * size : row.start - page * size]
                self._known[key][first : row.start] = found.numpy()
            self._seen[key] = max(first, end)

    def sampled(self, request_ids: Sequence[int], positions: list[int], values: Tensor) -> None:
        """Note the surprisals ``[S]`` of tokens sampled for ``positions`` of their sequences."""
        for key, position, value in zip(request_ids, positions, values.tolist(), strict=True):
            self._known[key][position] = value

    def prompt(self, request_id: int) -> PromptScore:
        """Return the score of a request's prompt so far."""
        known = self._known[request_id][: self._prompts[request_id]]
        scored = known[~np.isnan(known)]
        return PromptScore(float(scored.sum(dtype=np.float64)), len(scored))

    def score(self, rows: Sequence[Row], tokens: Sequence[Sequence[int]], head: Head) -> None:
        """Score the prompt tokens that follow the rows' tokens, from the hidden states of a pass.

        ``tokens`` holds each row's sequence, whole. The last token of a chunk scores the first of
        the next one.
        """
        first = 0
        where: list[np.ndarray] = []
        targets: list[int] = []
        homes: list[tuple[np.ndarray, int]] = []
        for row, sequence in zip(rows, tokens, strict=True):
            known, start = self._known[row.request_id], row.start + 1
            count = min(row.n_tokens, self._prompts[row.request_id] - start)
            if count > 0 and np.isnan(known[start : start + count]).any():
                where.append(np.arange(first, first + count))
                targets.extend(sequence[start : start + count])
                homes.append((known[start : start + count], count))
            first += row.n_tokens
        if not homes:
            return
        scored = head.surprisal(np.concatenate(where), targets)
        at = 0
        for home, count in homes:
            home[:] = scored[at : at + count]
            at += count


class Head:
    """Turns the hidden states of a pass into surprisals, a block of rows at a time."""

    def __init__(self, model: Any) -> None:
        """Find a transformers model's decoder and its output layer."""
        self._decoder = model.get_decoder()
        self._output = model.get_output_embeddings()
        self._hidden: Tensor | None = None
        self._checked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the last hidden states ``[N, D]`` of the pass that runs inside."""

        def keep(_: Any, __: Any, out: Any) -> None:
            self._hidden = out.last_hidden_state[0]

        handle = self._decoder.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def surprisal(self, where: np.ndarray, targets: Sequence[int]) -> np.ndarray:
        """Return -ln p(target) of each chosen hidden state, nats, float32; memory bounded."""
        assert self._hidden is not None, "no pass has been listened to"
        device = self._hidden.device
        chosen, wanted = (torch.tensor(each, device=device) for each in (where, targets))
        out = np.empty(len(targets), np.float32)
        for first in range(0, len(targets), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            logits = self._output(self._hidden[chosen[block]]).float()
            lse = row_stats(logits, torch.zeros(len(logits), 1, device=device)).lse[:, 0]
            out[block] = (lse - logits.gather(1, wanted[block, None])[:, 0]).cpu().numpy()
        return out

    def check(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Refuse a model that changes its logits after the output layer, at the first chance.

        ``logits [S, n]`` are the model's own, of the last token of each row that samples.
        """
        if self._checked or not len(logits):
            return
        assert self._hidden is not None, "no pass has been listened to"
        ends = np.cumsum([row.n_tokens for row in rows]) - 1
        sampled = torch.tensor(ends[[row.samples for row in rows]], device=logits.device)
        ours = self._output(self._hidden[sampled]).float()
        near = {"rtol": HEAD_TOLERANCE, "atol": HEAD_TOLERANCE, "equal_nan": True}
        if not torch.allclose(ours, logits, **near):
            raise UnsupportedModel(
                "model: scores of prompts need logits that no cap or scale moves"
            )
        self._checked = True
