"""Invariants of an array replica, asserted from what its residents say of themselves."""

from __future__ import annotations

import numpy as np

from simulator.array_residents import Residents
from simulator.array_timeline import SUMS


def check(here: Residents) -> None:
    """Assert, between two steps, that the sums are those of the residents (INV-1, 2, 3, 6)."""
    scheduler, timeline = here.scheduler, here.timeline
    residents = {**here.joined, **here.prefilling}
    assert residents.keys() == scheduler.running.keys(), "residents disagree with the scheduler"
    assert len(residents) == len(here.joined) + len(here.prefilling), "in and out of a run at once"
    assert len(residents) <= here.limits.max_seqs, "more residents than slots"
    assert not (scheduler.waiting.keys() & residents.keys()), "waiting and resident at once"
    unfinished = scheduler.waiting.keys() | residents.keys()
    assert unfinished == here.lives.keys(), "a request is neither waiting nor running"
    assert scheduler.reserved is None or scheduler.reserved in scheduler.waiting, "pin of nobody"
    at = here.step - timeline.base
    ahead = np.zeros_like(timeline.cells[:, at:])
    for life in here.joined.values():
        tail = here.tail(life)
        assert tail.shape[1] >= 1, f"request {life.request_id} runs past its end"
        ahead[:SUMS, : tail.shape[1]] += tail
    assert np.array_equal(timeline.cells[:SUMS, at:], ahead[:SUMS]), "sums are not the residents'"
    held = sum(len(life.sequence.pages) for life in here.prefilling.values())
    assert here.prefill_pages == held, "pages of prefills are miscounted"
    assert here.outstanding == _outstanding(here), "outstanding tokens are miscounted"
    for sequence in scheduler.waiting.values():
        assert not sequence.pages, f"{sequence} waits with pages"
        assert sequence.computed == 0, f"{sequence} waits with computed tokens"


def _outstanding(here: Residents) -> int:
    total = 0
    for request_id, life in here.lives.items():
        if request_id in here.joined:
            total += 1 + life.cap - (life.end - here.tail(life).shape[1])
        else:
            total += life.outstanding
    return total
