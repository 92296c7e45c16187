"""Many calls spread over worker processes that leave an interrupt to their parent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

Given = TypeVar("Given")
Found = TypeVar("Found")


def spread(
    work: Callable[[Given], Found], items: Iterable[Given], jobs: int, *, ordered: bool = True
) -> Iterator[Found]:
    """Yield ``work`` of every item from ``jobs`` processes (-1: one per processor), as it is done.

    In the order of the items, or as they come. With one process the caller does the work itself.
    """
    if jobs == 1:
        return map(work, items)
    from multiprocessing import resource_tracker

    from joblib import Parallel, delayed

    resource_tracker.ensure_running()  # up to Python 3.11 its start lets interrupts through again
    kind = "generator" if ordered else "generator_unordered"
    calls = [delayed(work)(item) for item in items]
    with interrupts_held():
        found = Parallel(n_jobs=jobs, return_as=kind)(calls)  # starts the workers
    return cast("Iterator[Found]", found)  # typed as if a worker might return nothing


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT back; processes and threads that are started meanwhile never get it.

    A terminal interrupts the whole group at once. Workers would write tracebacks, in particular
    while they import; their parent ends them in any case.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
