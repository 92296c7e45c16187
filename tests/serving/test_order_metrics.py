"""Overtakes, priority inversions and service gaps against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.ledger import Ledger
from controllers.serving.metrics import summarise
from controllers.serving.order_metrics import inversions, overtakes
from tests.serving.worlds import STEP_LAW, request, world


def ordered(*times: tuple[int, int | None]) -> Ledger:
    """A ledger of requests with these arrivals and first services."""
    ledger = Ledger()
    for i, (arrival, first) in enumerate(times):
        ledger.submitted(i, 5, 1, arrival)
        if first is not None:
            ledger.requests.columns["first_scheduled_ns"][i] = first
    return ledger


def test_an_overtake_is_a_later_arrival_first_served() -> None:
    found = overtakes(ordered((0, 9), (1, 5), (2, 5), (3, None), (4, 20), (4, 4)))
    assert found.tolist() == [3, 1, 1, 2, 1, 0]


times = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 12)), max_size=40)


@given(raw=times, ranks=st.lists(st.integers(-2, 2), min_size=40, max_size=40))
def test_order_metrics_equal_their_definitions(
    raw: list[tuple[int, int | None]], ranks: list[int]
) -> None:
    found = [(a, None if f is None else a + f) for a, f in raw]
    ledger, rank = ordered(*found), np.array(ranks[: len(found)], np.int64)
    start = [10**9 if f is None else f for _, f in found]
    passed, inverted = [], []
    for i, (came, _) in enumerate(found):
        later = [j for j in range(len(found)) if (found[j][0], j) > (came, i)]
        passed.append(sum(start[j] < start[i] for j in later))
        worse = [j for j in range(len(found)) if rank[j] > rank[i] and start[j] < 10**9]
        inverted.append(sum(came <= start[j] < start[i] for j in worse))
    assert overtakes(ledger).tolist() == passed
    assert inversions(ledger, rank).tolist() == inverted


def test_a_gap_in_seconds_is_from_the_end_of_a_service_to_the_next_begin() -> None:
    w = world(n_pages=12, max_seqs=3)
    for i in range(6):
        w.submit(request(i, 9, 12))
    w.run()
    ledger = w.loop.ledger
    steps = ledger.steps
    assert ledger.requests["max_service_gap_steps"].max() > 3
    ends = np.r_[0, steps["now_ns"] + steps["duration_ns"]]
    gap_ns = summarise(ledger, step_law=STEP_LAW, bytes_per_page_unit=1)["max_service_gap_s"] * 1e9
    waits = [end - begin for begin in ends for end in steps["now_ns"] if end >= begin]
    assert gap_ns == pytest.approx(min(waits, key=lambda wait: abs(wait - gap_ns)))
    longest = ledger.requests["max_service_gap_steps"].argmax()
    first = ledger.requests["first_scheduled_ns"][longest]
    assert ledger.requests["max_service_gap_ns"][longest] >= first
