"""The stages a profile is fitted on: every kind of step, over the range that will be served."""

from __future__ import annotations

from collections.abc import Iterator

from backend.profile_stage import Stage

ROOM = 16  # positions a stage may run on past its context
SHORT = 16  # tokens of the least context and, about, of the least prompt chunk


def stages(
    *,
    max_seqs: int,
    max_context: int,
    token_budget: int,
    pool_tokens: int,
    coverages: tuple[float, ...],
) -> list[Stage]:
    """Return the grid, each stage once, those that the pool holds.

    Decode rows by batch and context, equal and skewed; prompt chunks by length and start; both in
    one step; and rows that prune, at each of ``coverages``.
    """
    longest = max_context - max_seqs - ROOM
    found = [
        *_decode(max_seqs, longest),
        *_skewed(max_seqs, longest),
        *_prefill(token_budget, longest),
        *_mixed(max_seqs, longest, token_budget),
        *_sparse(max_seqs, longest, token_budget, coverages),
    ]
    room = (max_seqs + 1) * ROOM
    held = [s for s in found if sum(s.contexts) + s.start + s.chunk + room <= pool_tokens]
    return list(dict.fromkeys(held))


def contexts(longest: int) -> list[int]:
    """Return contexts from short to ``longest``, each about twice as long but the first."""
    found = [longest]
    while found[0] > 16 * SHORT:
        found.insert(0, found[0] // 2)
    return [SHORT, *found]


def batches(most: int) -> list[int]:
    """Return batch sizes from 1 to ``most``, close enough to show where kernels change."""
    return sorted({b for b in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if b <= most} | {most})


def _decode(most: int, longest: int) -> Iterator[Stage]:
    for batch in batches(most):
        for context in contexts(longest):
            yield Stage((context,) * batch)


def _skewed(most: int, longest: int) -> Iterator[Stage]:
    short = contexts(longest)[0]
    for batch in (b for b in batches(most)[1::2] if b > 1):
        yield Stage((longest, *(short,) * (batch - 1)))
        half = batch // 2
        yield Stage((*(longest,) * half, *(short,) * (batch - half)))


def _prefill(budget: int, longest: int) -> Iterator[Stage]:
    for chunk in _chunks(budget):
        yield Stage(chunk=min(chunk, longest))
        for start in (max(chunk, longest // 4), longest // 2, longest - chunk):
            if start >= chunk and start + chunk <= longest:
                yield Stage(chunk=chunk, start=start)


def _mixed(most: int, longest: int, budget: int) -> Iterator[Stage]:
    few = [b for b in batches(most)[1::2] if b < budget]
    for index, batch in enumerate(few):
        for at, chunk in enumerate(_chunks(budget - batch)):
            context = contexts(longest)[(index + at) % len(contexts(longest))]
            yield Stage((context,) * batch, chunk=chunk)
            start = max(chunk, longest // 2)
            if at % 2 and start + chunk <= longest:
                yield Stage((context,) * batch, chunk=chunk, start=start)


def _sparse(most: int, longest: int, budget: int, coverages: tuple[float, ...]) -> Iterator[Stage]:
    for coverage in coverages:
        for batch in (1, max(1, most // 4), max(1, most // 2), most):
            for context in contexts(longest)[-3:]:
                yield Stage((context,) * batch, coverage, steps=3)
    for coverage in coverages[:1]:  # among others, not to fit one kind of step apart
        batch = max(1, most // 2)
        yield Stage((longest,) * batch, coverage, chunk=min(16 * SHORT, budget - batch))
        yield Stage((longest, *(longest // 4,) * (batch - 1)), coverage)


def _chunks(budget: int) -> list[int]:
    found = [budget]
    while found[0] >= 2 * SHORT:
        found.insert(0, found[0] // 2)
    return found
