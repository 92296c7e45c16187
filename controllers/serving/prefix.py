"""Prefix caching: the names of prompt pages, and when a request's pages can be found by others.

A page is named by a hash of its token ids and of every token before it. Only full prompt pages,
computed by dense attention, are named: KV computed from pruned attention is approximate and stays
with its request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Seq

import numpy as np

from controllers.core import require
from controllers.serving.pages import PagePool
from controllers.serving.request import Request, Sequence

HASH_BYTES = 16


def page_hashes(tokens: Seq[int], page_tokens: int, seed: str) -> tuple[int, ...]:
    """Return one chained 128-bit hash per full page of ``tokens``, first page first.

    ``seed`` names what computes the KV (model, weights, number format): other seeds, other hashes.
    Pages are found by hash alone, tokens are not compared. BLAKE2b is collision resistant (RFC
    7693): n pages in memory are confused by accident with odds n^2/2^129, and finding two prompts
    with one hash takes about 2^64 trials.
    """
    require(page_tokens >= 1, "page_tokens must be >= 1", page_tokens=page_tokens)
    n_pages = len(tokens) // page_tokens
    ids = np.asarray(tokens[: n_pages * page_tokens], dtype="<i8").reshape(n_pages, page_tokens)
    chain = hashlib.blake2b(f"{page_tokens}:{seed}".encode(), digest_size=HASH_BYTES).digest()
    found: list[int] = []
    for page in ids:
        chain = hashlib.blake2b(chain + page.tobytes(), digest_size=HASH_BYTES).digest()
        found.append(int.from_bytes(chain, "big"))
    return tuple(found)


def check_hashes(request: Request, hashes: Seq[int], page_tokens: int) -> None:
    """Raise ``ValueError`` unless there is one hash per full prompt page, or none at all."""
    full = request.prompt_tokens // page_tokens
    require(
        len(hashes) in (0, full),
        f"page_hashes must hold one hash per full prompt page, {full}, or none",
        page_hashes=len(hashes),
    )


def shareable(sequence: Sequence, pool: PagePool, page_tokens: int) -> list[int]:
    """Return the pages a waiting sequence would find; one token at least stays to be computed."""
    most = (sequence.known - 1) // page_tokens
    return pool.find(sequence.page_hashes[:most])


def publish(sequence: Sequence, pool: PagePool, page_tokens: int) -> None:
    """Make the prompt pages that were filled since the last call findable."""
    full = min(sequence.computed // page_tokens, len(sequence.page_hashes))
    for index in range(sequence.published, full):
        pool.publish(sequence.pages[index], sequence.page_hashes[index])
    sequence.published = max(sequence.published, full)
