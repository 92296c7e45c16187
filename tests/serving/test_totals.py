"""Totals and histograms say what rows say."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.serving.ledger import Ledger
from controllers.serving.metrics import Metric, summarise
from controllers.serving.token_metrics import TokenSums
from controllers.serving.totals import BIN_WIDTH, GapHistogram, Totals
from controllers.temperature import X_MAX, X_MIN
from tests.serving.worlds import STEP_LAW, crowded


def metrics(ledger: Ledger, **options: float) -> dict[str, Metric]:
    return summarise(ledger, step_law=STEP_LAW, bytes_per_page_unit=100, **options)


@pytest.mark.parametrize("levels", [(False, True), (True, False), (False, False)])
def test_totals_say_what_the_rows_say(levels: tuple[bool, bool]) -> None:
    """All but entropies of unfinished requests, which totals leave out, and ITL percentiles."""
    whole = crowded()
    lean = crowded(record_tokens=levels[0], record_steps=levels[1])
    assert (len(lean.tokens) > 0, len(lean.steps) > 0) == levels
    names = {"tau_nats", "tau_cal_nats", "entropy_net_nats", "nll_nats", "itl_s", "clip_share"}
    names |= {f"{name}_per_token" for name in names}
    one, other = (metrics(ledger, x_min=X_MIN, x_max=X_MAX) for ledger in (whole, lean))
    for name in one:
        if name not in names or levels[0]:
            assert one[name] == other[name], name
    ended = {i for i, row in whole.row_of.items() if whole.reasons[row] is not None}
    sums = TokenSums.of(whole, [X_MIN, X_MAX])
    kept = np.array([i in ended for i in whole.requests["request_id"]])
    if not levels[0]:
        expected = sums.metrics(kept) | {"clip_share": sums.clip_share(kept)}
        assert {name: other[name] for name in expected} == pytest.approx(expected)
        assert other["itl_s"]["mean"] == pytest.approx(one["itl_s"]["mean"], rel=1e-12)


def test_percentiles_of_the_histogram_are_within_half_a_bin() -> None:
    rng = np.random.default_rng(3)
    gaps = np.concatenate([rng.lognormal(17, 1.5, 20_001).astype(np.int64), [0, 1, 10**12]])
    histogram = GapHistogram()
    for part in np.array_split(gaps, 7):
        histogram.add(part)
    for share in (0.0, 0.05, 0.5, 0.95, 0.99, 1.0):
        true = np.sort(gaps)[int(share * (len(gaps) - 1))]
        assert histogram.quantile_ns(share) == pytest.approx(max(true, 1), rel=BIN_WIDTH / 2)
    assert histogram.sum_ns == gaps.sum()
    assert BIN_WIDTH <= 0.002


def test_a_histogram_counts_repeats_and_absorbs_another() -> None:
    one, other, both = GapHistogram(), GapHistogram(), GapHistogram()
    one.add(np.array([5, 10**9]), np.array([2, 3]))
    other.add(np.array([10**6]), 4)
    both.add(np.array([5, 5, *[10**9] * 3, *[10**6] * 4]))
    one.absorb(other)
    assert (one.n, one.sum_ns) == (both.n, both.sum_ns) == (9, 3 * 10**9 + 4 * 10**6 + 10)
    assert np.array_equal(one.counts, both.counts)


@given(data=st.data())
def test_totals_do_not_depend_on_how_steps_are_handed_over(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3000), label="steps")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    duration = rng.integers(1, 9, n)
    rest = [rng.integers(0, 50, n) for _ in range(7)]
    columns = [np.cumsum(duration) - duration, duration, *rest]
    cut = data.draw(st.integers(0, int(duration.sum())), label="from_ns")
    whole, ones, pieces, part = (Totals(cut) for _ in range(4))
    whole.steps(*columns)
    for values in zip(*(column.tolist() for column in columns), strict=True):
        ones.step(*values)
    places = data.draw(st.lists(st.integers(0, n), max_size=5), label="cuts")
    for start, end in pairwise([0, *sorted(places), n]):
        into = part if start % 2 else pieces
        into.steps(*(column[start:end] for column in columns))
    pieces.absorb(part)
    names = ("duration_ns", "n_decode", "page_units_read", "pages_scored", "preempted")
    kept = columns[0] >= cut
    for totals in (whole, ones, pieces):
        assert [totals.sum(name) for name in names] == [whole.sum(name) for name in names]
        assert np.array_equal(totals.held_ns, whole.held_ns)
        assert totals.n_steps == kept.sum()
    assert whole.held_ns.sum() == duration[kept].sum()
    assert whole.decode_row_ns == (columns[2] * duration)[kept].sum()
    assert whole.sum("preempted") == columns[8][kept].sum()


def test_totals_cannot_be_cut_afterwards() -> None:
    lean = crowded(record_steps=False)
    with pytest.raises(ValueError, match=r"cut where its totals begin, 0 ns; got warmup_ns=10+"):
        metrics(lean, warmup_s=1.0)


def test_a_block_of_steps_is_as_many_steps() -> None:
    rng = np.random.default_rng(5)
    columns = {name: rng.integers(0, 9, 2500) for name in Ledger().steps.columns}
    columns["now_ns"] = np.arange(2500) * 10
    one, block, lean = Ledger(), Ledger(), Ledger(record_steps=False)
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        one.ran(*values)
    for part in (slice(0, 1), slice(1, 2100), slice(2100, 2500)):
        for ledger in (block, lean):
            ledger.ran_block(**{name: column[part] for name, column in columns.items()})
    block.ran_block(**dict.fromkeys(columns, 3) | {"now_ns": np.array([25_000, 25_010])})
    for now_ns in (25_000, 25_010):
        one.ran(3, now_ns, *[3] * 8)
    lean.ran_block(**dict.fromkeys(columns, 3) | {"now_ns": np.array([25_000, 25_010])})
    for name in columns:
        assert one.steps[name].tolist() == block.steps[name].tolist()
    for name in ("duration_ns", "n_decode", "page_units_dense", "pages_scored", "preempted"):
        sums = {ledger.totals.sum(name) for ledger in (one, block, lean)}
        assert sums == {int(one.steps[name].sum())}
    assert one.step_count == block.step_count == lean.step_count == 2502
    assert len(lean.steps) == 0


def test_a_row_without_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="rows need every column; got got="):
        Ledger().steps.extend({"step": np.arange(3)})


def test_a_request_costs_a_lean_ledger_less_than_a_third_of_a_kilobyte() -> None:
    """The bar is .4 MB for a thousand requests in all; every column and its index counts."""
    tracemalloc.start()
    ledger = Ledger(record_tokens=False, record_steps=False)
    sizes = []
    for i in range(40_000):
        ledger.submitted(i, 500, 300, i)
        ledger.finished(i, i + 5, "stop")
        ledger.totals.request(300, 1.0, 1.0, 1.0, 1.0, 0, request_id=i)
        if i in (19_999, 39_999):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 20_000 * 333
