"""Measure the step law of a live backend: a grid of steps, fitted by non-negative least squares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from backend.executor import LiveExecutor
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw, chunk_squares

FEATURES = ("n_decode", "kv_tokens_read", "prompt_tokens", "prompt_squares")


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One kind of step: ``batch`` decode rows at ``context`` tokens, and one prompt chunk."""

    batch: int
    context: int
    chunk: int = 0
    chunk_start: int = 0

    def features(self) -> tuple[int, int, int, int]:
        """Return the step law's arguments, in the order of ``FEATURES``."""
        squares = chunk_squares(self.chunk_start, self.chunk) if self.chunk else 0
        return (self.batch, self.batch * self.context, self.chunk, squares)


def grid(max_batch: int, max_context: int, budget: int, pool_tokens: int) -> Iterator[GridPoint]:
    """Yield decode-only, prefill-only and mixed steps over the range that will be served."""
    batches = [b for b in (1, 2, 4, 8, 16, 32) if b <= max_batch]
    contexts = [c for c in (64, 256, 1024, 2048, 4096, 6144) if c <= max_context]
    chunks = [c for c in (16, 64, 128, 256, 512, 1024) if c <= budget]
    for batch in batches:
        for context in contexts:
            if batch * context <= pool_tokens:
                yield GridPoint(batch, context)
    for chunk in chunks[::2]:
        for start in (0, *(c for c in contexts if c >= 1024 and c + chunk <= max_context)):
            yield GridPoint(0, 0, chunk, start)
    yield GridPoint(0, 0, chunks[-1], max_context - chunks[-1])
    for batch in batches[1::2]:
        for chunk in chunks[1::2]:
            yield GridPoint(batch, contexts[len(contexts) // 2], chunk, 0)


def measure(
    executor: LiveExecutor,
    points: list[GridPoint],
    *,
    repeats: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return median seconds per grid point, ``[points]``; the order of timing is shuffled.

    Whole passes over the grid alternate with each other, so that a slow spell of the machine
    touches every point alike.
    """
    seconds = np.empty((repeats + 1, len(points)))
    for repeat in range(repeats + 1):  # the first pass warms up and is dropped
        for done, index in enumerate(rng.permutation(len(points))):
            seconds[repeat, index] = _time_step(executor, points[index])
            if progress is not None:
                progress(repeat * len(points) + done + 1, (repeats + 1) * len(points))
    return np.median(seconds[1:], axis=0)


def _time_step(executor: LiveExecutor, point: GridPoint) -> float:
    size, tables, rows, page = executor.limits.page_tokens, {}, [], 0
    shapes = [(point.context - 1, 1)] * point.batch
    if point.chunk:
        shapes.append((point.chunk_start, point.chunk))
    for request_id, (start, n_tokens) in enumerate(shapes):
        length = start + n_tokens
        prompt = [1 + i % 1000 for i in range(length)]
        request = Request(request_id=request_id, prompt_tokens=length, max_tokens=1)
        executor.add(request, prompt)
        pages = -(-length // size)
        tables[request_id] = list(range(page, page + pages))
        page += pages
        rows.append(Row(request_id, start, n_tokens, True, 1.0, False))
    started = time.perf_counter()
    executor.execute(Plan(0, tuple(rows)), tables)
    elapsed = time.perf_counter() - started
    for request_id in tables:
        executor.release(request_id)
    return elapsed


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted step law and how far it is off on points it did not see."""

    law: StepLaw
    held_out_mape: float  # mean absolute relative error, share
    held_out_max: float


def fit(points: list[GridPoint], seconds: np.ndarray, rng: np.random.Generator) -> Fit:
    """Fit relative error by non-negative least squares; hold out a quarter to state the error.

    The law shipped is the one fitted on every point; the error is that of a fit without the
    held-out quarter.
    """
    design = np.array([(1.0, *point.features()) for point in points])
    held = np.zeros(len(points), dtype=bool)
    held[rng.permutation(len(points))[: len(points) // 4]] = True
    trial = _solve(design[~held], seconds[~held])
    error = np.abs(design[held] @ trial / seconds[held] - 1.0)
    final = _solve(design, seconds)
    law = StepLaw(
        base_s=final[0],
        per_decode_s=final[1],
        per_kv_token_s=final[2],
        per_prompt_token_s=final[3],
        per_prompt_square_s=final[4],
        floor_s=0.0,
    )
    return Fit(law, float(error.mean()), float(error.max()))


def _solve(design: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    scale = design.max(axis=0)  # columns span nine decades; nnls wants them alike
    weights, _ = nnls(design / scale / seconds[:, None], np.ones(len(seconds)))
    return weights / scale
