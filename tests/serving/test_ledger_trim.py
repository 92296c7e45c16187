"""A ledger that forgets old requests speaks of the others as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from tests.serving.worlds import World, request, world


def served(n: int, *, trim_at: dict[int, int] | None = None) -> World:
    """Serve ``n`` requests, a new one each third step, trimming after the given steps."""
    made = world(n_pages=40)
    submitted = steps = 0
    while submitted < n or made.loop.has_work:
        if submitted < n and steps % 3 == 0:
            made.submit(request(submitted, 5 + submitted % 7, 3 + submitted % 5))
            submitted += 1
        made.step()
        steps += 1
        if trim_at and steps in trim_at:
            made.loop.ledger.trim(trim_at[steps])
        made.loop.check()
    return made


def rows_of(ledger: Ledger, request_id: int) -> dict[str, list[float]]:
    row = ledger.row_of[request_id]
    mine = ledger.tokens["request_id"] == request_id
    kept = {name: [ledger.requests[name][row]] for name in ledger.requests.columns}
    return kept | {
        f"token {name}": list(ledger.tokens[name][mine]) for name in ledger.tokens.columns
    }


def test_what_is_left_is_what_it_was():
    whole = served(30).loop.ledger
    cut = served(30, trim_at={20: 2, 41: 3, 60: 0}).loop.ledger
    assert cut.forgotten > 10
    assert cut.forgotten + len(cut.requests) == 30
    assert len(cut.row_of) == len(cut.requests) == len(cut.reasons) > 0
    for request_id in cut.row_of:
        assert rows_of(cut, request_id) == rows_of(whole, request_id)
    assert cut.counts()["completed"] == len(cut.requests)
    assert cut.step_count == whole.step_count


def test_only_steps_since_the_oldest_request_left_are_kept():
    ledger = served(12).loop.ledger
    ledger.trim(4)
    first = ledger.requests["arrival_ns"].min()
    assert 0 < len(ledger.steps) < ledger.step_count
    assert np.all(ledger.steps["now_ns"] >= first)
    ledger.check()


def test_an_unfinished_request_is_never_forgotten():
    made = world(n_pages=40)
    made.submit(request(0, 5, 12))
    made.submit(request(1, 5, 2))
    while 1 in made.loop.sequences:
        made.step()
    assert made.loop.ledger.trim(0) == 1
    assert list(made.loop.ledger.row_of) == [0]
    while made.loop.has_work:
        made.step()
    made.loop.check()
    assert made.loop.ledger.requests["tokens"].tolist() == [12]
    assert len(made.loop.ledger.tokens) == 12


def test_trimming_everything_leaves_an_empty_ledger_that_still_works():
    made = served(5)
    assert made.loop.ledger.trim(0) == 5
    ledger = made.loop.ledger
    assert len(ledger.requests) == len(ledger.tokens) == len(ledger.steps) == 0
    assert ledger.trim(0) == 0
    made.submit(request(7, 5, 3))
    while made.loop.has_work:
        made.step()
    assert ledger.counts()["completed"] == 1


def test_a_negative_number_to_keep_is_refused():
    with pytest.raises(ValueError, match="keep must be >= 0; got keep=-1"):
        Ledger().trim(-1)


def test_who_finished_last_is_kept_however_early_it_came():
    made = world(n_pages=40)
    made.submit(request(0, 5, 30))
    for request_id in range(1, 6):
        made.submit(request(request_id, 5, 2))
    while made.loop.has_work:
        made.step()
    made.loop.ledger.trim(2)
    assert 0 in made.loop.ledger.row_of
    assert len(made.loop.ledger.requests) == 2
    made.loop.check()
