"""The benchmarks: what is kept of them, lines fitted, and memory asked for first."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from reports.bench import clock
from reports.bench.clock import Copy, interleave
from reports.bench.fit import crossover, fit_line
from reports.bench.memory import Sizes, needed_bytes, require_fits
from reports.bench.rows import (
    COLUMNS,
    BenchError,
    BenchRow,
    Stamp,
    append,
    measure,
    read,
    stamped,
)

STAMP = Stamp(device="a box", model="tiny", versions="torch=2", commit="abc", date="2026-01-01")
TINY_COPY = 1 << 16


def some(*values: float, metric: str = "step_s") -> list[BenchRow]:
    return stamped([measure("decode", "dense", "batch=1 context=16", metric, "s", values)], STAMP)


# Rows and their file


def test_appended_rows_come_back_after_the_old_ones(tmp_path):
    path = tmp_path / "new" / "bench.csv"
    old, new = some(3.0, 1.0, 2.5), some(0.1, metric="x, with a comma")
    append(path, old)
    append(path, new)
    assert read(path) == [*old, *new]
    assert (old[0].median, old[0].low, old[0].high, old[0].repeats) == (2.5, 1.0, 3.0, 3)
    assert [p.name for p in path.parent.iterdir()] == ["bench.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,seconds\ndecode,1\n", "columns must be name,variant"),
        ("", "columns must be .*; got an empty file"),
        (",".join(COLUMNS) + "\ndecode,dense\n", "line 2: must have 14 cells; got 2"),
        (
            ",".join(COLUMNS) + "\n" + ",".join(["d", "v", "s", "m", "u", "fast"] + ["1"] * 8),
            "line 2: median must be a number; got 'fast'",
        ),
    ],
)
def test_a_file_of_another_schema_is_refused_by_name_and_left_alone(tmp_path, text, message):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"other\.csv: .*" + message):
        append(path, some(1.0))
    assert path.read_text() == text


def test_a_measure_that_is_no_number_is_refused():
    with pytest.raises(BenchError, match="decode step_s must be finite"):
        some(1.0, float("nan"))


# Fits


def test_slope_and_intercept_of_a_line_are_recovered():
    x = [3.0, 10.0, 40.0, 129.0]
    line = fit_line(x, [0.02 + 0.5 * value for value in x])
    assert (line.slope, line.intercept, line.r2) == pytest.approx((0.5, 0.02, 1.0))


def test_noise_lowers_r2_and_a_single_x_has_no_line():
    assert 0.0 < fit_line([0.0, 1.0, 2.0], [0.0, 2.0, 1.0]).r2 < 0.5
    with pytest.raises(BenchError, match="two different x"):
        fit_line([2.0, 2.0], [1.0, 3.0])


def test_the_crossover_is_where_the_ratio_last_falls_below_one():
    lengths = [100.0, 200.0, 400.0, 800.0]
    assert crossover(lengths, [0.9, 1.5, 0.5, 0.4]) == pytest.approx(300.0)
    assert crossover(lengths, [0.9, 0.8, 0.7, 0.6]) == 100.0
    assert crossover(lengths, [2.0, 0.9, 0.9, 1.0]) is None


# Clock


def test_cases_take_turns_and_the_first_turn_is_dropped():
    order: list[str] = []
    ticks = itertools.count()

    def case(name: str) -> float:
        order.append(name)
        return float(next(ticks))

    seconds = interleave({name: partial(case, name) for name in "ab"}, repeats=3)
    assert "".join(order) == "abbaabba"
    assert seconds == {"a": (3.0, 4.0, 7.0), "b": (2.0, 5.0, 6.0)}


def test_every_turn_of_every_case_begins_with_untimed_calls_until_it_has_settled(monkeypatch):
    now, order = [0.0], []

    def case(name: str, took: float) -> float:
        order.append(name)
        now[0] += took
        return float(len(order))

    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    cases = {"a": partial(case, "a", 2.0), "b": partial(case, "b", 9.0)}
    seconds = interleave(cases, repeats=3, settle_s=3.0)
    assert "".join(order) == "aaabb" + "bbaaa" + "aaabb" + "bbaaa"
    assert seconds == {"a": (10.0, 13.0, 20.0), "b": (7.0, 15.0, 17.0)}


def test_copies_count_what_is_read_and_what_is_written():
    copy = Copy(TINY_COPY)
    assert (copy.moved_bytes, copy.read_bytes) == (2 * TINY_COPY, TINY_COPY)
    assert copy() > 0.0


# Memory


def test_a_batch_beyond_memory_is_refused_with_the_figures():
    sizes = Sizes(weights=540_000_000, kv_per_token=46_080)
    with pytest.raises(BenchError, match=r"64 x 8176 and peers sdpa needs 49\.4 GB; got 18\.0 GB"):
        require_fits(sizes, 64, 8176, ("sdpa",), free=20_000_000_000)
    alone, beside = (needed_bytes(sizes, 1, 16, peers) for peers in ((), ("transformers",)))
    assert beside - alone > sizes.weights
    require_fits(sizes, 1, 512, (), free=20_000_000_000)


# Equal work
