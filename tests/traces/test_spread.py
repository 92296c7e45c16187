"""Work spread over processes: the same answers, and interrupts left to the parent."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from traces.spread import interrupts_held, spread


def _held(_: int) -> tuple[bool, int]:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()), os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_answers_come_in_order_whoever_works(jobs):
    assert list(spread(abs, range(-5, 0), jobs)) == [5, 4, 3, 2, 1]
    assert sorted(spread(abs, range(-5, 0), jobs, ordered=False)) == [1, 2, 3, 4, 5]


def test_workers_never_get_an_interrupt_and_their_parent_does():
    found = list(spread(_held, range(4), 2))
    assert all(held for held, _ in found)
    assert os.getpid() not in {worker for _, worker in found}
    assert not _held(0)[0]


def test_an_interrupt_that_comes_while_workers_start_is_not_lost():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = False
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            reached = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached
