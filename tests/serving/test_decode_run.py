"""A run of decode steps must leave in the ledger what its steps one by one would have left."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.ledger import Ledger

IDS = (3, 5, 9)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[int], int, int, list[float]]]:
    """Return steps: who decodes, when it begins and ends, and the coverage of each row."""
    now_ns, steps = 10, []
    for _ in range(draw(st.integers(1, 25))):
        members = draw(st.sampled_from([[3, 5, 9], [3, 9], [5], []]))
        now_ns += draw(st.sampled_from([0, 0, 4, 7]))
        end_ns = now_ns + draw(st.integers(1, 5))
        steps.append((members, now_ns, end_ns, [draw(st.floats(0.5, 1.0)) for _ in members]))
        now_ns = end_ns
    return steps


@given(history=histories(), read_every=st.integers(1, 30))
def test_decoded_books_what_served_and_sampled_book(history: list, read_every: int) -> None:
    runs, ones = Ledger(), Ledger()
    for ledger in (runs, ones):
        for request_id in IDS:
            ledger.submitted(request_id, 8, 90, 0)
    for number, (members, begin_ns, end_ns, coverage) in enumerate(history):
        runs.decoded(members, begin_ns, coverage, end_ns)
        for request_id, kept in zip(members, coverage, strict=True):
            ones.served(request_id, begin_ns, kept, end_ns)
            ones.sampled(request_id, end_ns)
        for ledger in (runs, ones):
            ledger.ran(number, begin_ns, end_ns - begin_ns, len(members), 0, 1, 1, 1, 0, 0)
        if number % read_every == 0:
            assert len(runs.requests) == len(IDS)  # reading in between must change nothing
    for name in ones.requests.columns:
        np.testing.assert_array_equal(runs.requests[name], ones.requests[name], err_msg=name)


def test_token_rows_are_there_as_soon_as_somebody_looks() -> None:
    ledger = Ledger()
    for step in range(600):
        h = np.full(2, step, np.float32)
        ledger.token_rows([3, 5], [step, step], 7 * step, (h, h + 1, h + 2, h + 3), [0.5, 1.0])
        if step in (0, 299, 599):
            assert len(ledger.tokens) == 2 * (step + 1)
    assert ledger.tokens["now_ns"].tolist() == [7 * (i // 2) for i in range(1200)]
    assert ledger.tokens["request_id"].tolist() == [3, 5] * 600
    assert ledger.tokens["h_applied"].tolist() == [float(i // 2) for i in range(1200)]
    assert ledger.tokens["surprisal"].tolist() == [3.0 + i // 2 for i in range(1200)]
    assert ledger.tokens["coverage"].tolist() == [0.5, 1.0] * 600
