"""Arrivals kept as columns are the same arrivals, and are held to the same rules."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from controllers.serving.request import Request
from simulator.arrival import Arrival, ArrivalTable, Columns
from simulator.run_result import asked_of
from simulator.workload import Workload
from traces.prefixes import Prefixes

TEMPLATES = {
    4: Request(request_id=0, prompt_tokens=1, max_tokens=1, temperature=0.7, seed=9),
    6: Request(request_id=0, prompt_tokens=1, max_tokens=1, target_nats=2.0, one_sided=True),
}


def columns(**changes: Any) -> Columns:
    whole = {
        "arrival_ns": [0, 5, 5, 0],
        "trace_index": [4, 6, 4, 6],
        "prompt_tokens": [40, 3, 33, 80],
        "output_tokens": [5, 6, 7, 8],
        "max_tokens": [9, 9, 9, 8],
        "predicted_tokens": [6, -1, 6, -1],
        "cancel_ns": [-1, 7, -1, -1],
        "client": [0, 1, 0, 1],
        "task_class": [1, 1, 0, 0],
        "after": [-1, -1, -1, 0],
        "think_ns": [0, 0, 0, 30],
    } | changes
    return Columns(**{name: np.array(values, np.int64) for name, values in whole.items()})


def table(**changes: Any) -> ArrivalTable:
    return ArrivalTable(
        columns(**changes),
        templates=TEMPLATES,
        clients=("ann", "bob"),
        classes=("code", "chat"),
        prefixes=Prefixes.of([[1, 2], [], [1], [1, 2, 3]], 32),
        page_tokens=16,
    )


def test_rows_become_the_arrivals_that_they_spell_out():
    last = Arrival(
        request=dataclasses.replace(
            TEMPLATES[6], request_id=3, prompt_tokens=80, max_tokens=8, client="bob",
            task_class="code",
        ),
        arrival_ns=0,
        trace_index=6,
        output_tokens=8,
        page_hashes=Prefixes.of([[1, 2], [], [1], [1, 2, 3]], 32).page_names(3, 80, 16),
        after=0,
        think_ns=30,
    )  # fmt: skip
    made = table()
    assert made[3] == made[-1] == last
    assert made[1].cancel_ns == 7
    assert made[0].request.predicted_tokens == 6
    assert made[1].page_hashes == ()
    assert made[0].page_hashes[:2] == made[3].page_hashes[:2]


def test_a_table_reads_as_the_tuple_of_its_rows():
    made = table()
    rows = tuple(made)
    assert len(made) == 4
    assert rows == made[:] == tuple(made[i] for i in range(4))
    assert made[::-1] == rows[::-1]
    with pytest.raises(IndexError):
        made[4]


def test_columns_of_a_workload_are_those_of_its_rows():
    lazy, eager = Workload(arrivals=table()), Workload(arrivals=tuple(table()))
    names = [field.name for field in dataclasses.fields(Arrival)]
    for name in ("request_id", "prompt_tokens", "max_tokens", *names):
        if name not in ("request", "page_hashes"):
            assert lazy.column(name).tolist() == eager.column(name).tolist()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"arrival_ns": [6, 5, 5, 0]}, "arrivals must be in time order"),
        ({"arrival_ns": [-1, 5, 5, 0]}, "arrival_ns must be >= 0"),
        ({"prompt_tokens": [40, 0, 33, 80]}, "prompt_tokens and max_tokens must be >= 1"),
        ({"output_tokens": [0, 6, 7, 8]}, "output_tokens must be >= 1; got request_id=0"),
        ({"cancel_ns": [-1, 4, -1, -1]}, "cancel_ns must be >= arrival_ns; got request_id=1"),
        ({"after": [-1, -1, -1, 3]}, "a follow-up must come after the request it follows"),
        ({"think_ns": [0, 3, 0, 3]}, "0 without a request to follow; got request_id=1"),
        ({"arrival_ns": [0, 5, 5, 9]}, "a follow-up has arrival_ns = 0"),
        ({"trace_index": [4, 6, 4, 7]}, "every trace_index needs a template"),
        ({"client": [0, 1, 0, 2]}, "client codes must lie in"),
        ({"after": [-1, -1, -1]}, "after must have 4 rows"),
    ],
)
def test_broken_columns_are_named(changes, named: str):
    with pytest.raises(ValueError, match=named):
        table(**changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"think_ns": 5}, "think_ns needs a request to follow"),
        ({"after": 0, "think_ns": -5}, "think_ns must be >= 0"),
        ({"after": 0, "arrival_ns": 5}, "its clock is not known yet"),
        ({"after": 0, "cancel_ns": 5}, "its clock is not known yet"),
    ],
)
def test_a_follow_up_has_no_clock_of_its_own(changes, named: str):
    whole = {"request": TEMPLATES[4], "arrival_ns": 0, "trace_index": 0} | changes
    with pytest.raises(ValueError, match=named):
        Arrival(**whole)


def test_a_workload_knows_whom_its_follow_ups_follow():
    first, follow = table()[0], table()[3]
    assert Workload(arrivals=(first, follow)).column("after").tolist() == [-1, 0]
    with pytest.raises(ValueError, match="must come after the request it follows"):
        Workload(arrivals=(follow, first))
    with pytest.raises(ValueError, match="request ids must be distinct"):
        Workload(arrivals=(first, first))


def test_ranks_of_a_table_are_those_of_its_templates():
    first, last = TEMPLATES[4], dataclasses.replace(TEMPLATES[6], priority=2)
    ranked = ArrivalTable(
        columns(), templates={4: first, 6: last}, clients=("ann", "bob"), classes=("code", "chat")
    )
    for arrivals in (ranked, tuple(ranked)):
        assert asked_of(Workload(arrivals=arrivals))["ranks"] == {0: 0, 1: 2, 2: 0, 3: 2}
    assert asked_of(Workload(arrivals=table()))["ranks"] is None
