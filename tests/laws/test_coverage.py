"""Coverage laws: more uncertainty never reads less, and the printed floor does the opposite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core import replay
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from tests.strategies import token_signal

entropies = st.lists(st.floats(0.0, 11.0), min_size=1, max_size=40)


def _path(law: EntropyCoverage | SeedCoverage | FixedCoverage, h: list[float]) -> np.ndarray:
    return replay(law, [token_signal(dtype=np.float32, h_cal=value) for value in h])[:, 0]


def _settled(law: EntropyCoverage | SeedCoverage, h: float) -> float:
    return float(_path(law, [h] * 40)[-1])


@given(st.floats(0.0, 11.0), st.floats(0.0, 11.0))
def test_coverage_is_non_decreasing_in_entropy(a: float, b: float) -> None:
    low, high = sorted((a, b))
    for law in (EntropyCoverage(), SeedCoverage()):
        assert _settled(law, low) <= _settled(law, high)


@given(entropies, st.lists(st.floats(0.0, 5.0), min_size=40, max_size=40))
def test_one_step_is_monotone_from_any_reached_state(h: list[float], more: list[float]) -> None:
    law = EntropyCoverage()
    signals = [token_signal(2, np.float32, h_cal=value) for value in h]
    state = law.init(signals[0])
    for signal in signals:
        state, _ = law.update(state, signal)
    low = token_signal(2, np.float32, h_cal=[h[-1], h[-1] + more[0]])
    _, command = law.update(state, low)
    assert command[0] <= command[1]


@given(st.floats(0.0, 11.0), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_less_sure_means_more_coverage_and_the_seed_does_the_opposite(
    h: float, a: float, b: float
) -> None:
    sure, unsure = sorted((a, b))
    repaired = [_settled(EntropyCoverage(margin=m), h) for m in (sure, unsure)]
    printed = [_settled(SeedCoverage(margin=m), h) for m in (sure, unsure)]
    assert repaired[0] <= repaired[1]
    assert printed[0] >= printed[1]


def test_the_seed_defect_is_strict_inside_the_ramp() -> None:
    assert _settled(SeedCoverage(margin=0.8), 1.5) < _settled(SeedCoverage(margin=0.1), 1.5) - 0.02


@given(entropies)
def test_coverage_moves_by_the_rate_at_most_and_rests_for_the_dwell(h: list[float]) -> None:
    law = EntropyCoverage(p_min=0.8, rate=0.03, dwell=4)
    path = _path(law, h)
    moves = np.diff(path, prepend=np.float32(law.p_max))
    assert np.abs(moves).max() <= 0.03 + 1e-6
    assert (np.diff(np.flatnonzero(moves)) >= law.dwell).all()


def test_the_ramp_ends_at_its_bounds_and_clears_its_dead_zones() -> None:
    law = EntropyCoverage()
    assert _settled(law, 0.0) == np.float32(0.95)
    assert _settled(law, 11.0) == np.float32(0.99)
    assert 0.95 < _settled(law, 1.5) < 0.99


def test_coverage_between_the_largest_recorded_value_and_dense_is_never_commanded() -> None:
    path = _path(
        EntropyCoverage(p_min=0.9, p_max=1.0, dwell=1, rate=0.003), [0.0] * 40 + [9.0] * 40
    )
    assert set(path[path > np.float32(0.99)]) == {np.float32(1.0)}
    assert {np.float32(0.99), np.float32(1.0)} <= set(path)


@given(st.floats(0.5, 0.99), st.floats(0.5, 0.99))
def test_rounding_never_passes_the_largest_coverage(a: float, b: float) -> None:
    p_min, p_max = sorted((a, b))
    for law in (
        EntropyCoverage(p_min=p_min, p_max=p_max, rate=1.0, dwell=1),
        SeedCoverage(p_min=p_min, p_max=p_max),
    ):
        top = _path(law, [0.0, 11.0])[-1]
        assert np.float32(p_max) - 1e-6 <= top <= np.float32(p_max)


def test_coverage_assumes_at_least_the_smallest_entropy() -> None:
    assert _settled(EntropyCoverage(h_min=1.6), 0.0) == _settled(EntropyCoverage(), 1.5)


@pytest.mark.parametrize("law", [FixedCoverage(coverage=0.9), EntropyCoverage(), SeedCoverage()])
def test_masked_lanes_read_everything_and_keep_their_place(law: EntropyCoverage) -> None:
    on = token_signal(dtype=np.float32, h_cal=0.0)
    off = on._replace(enabled=np.zeros(1, np.float32))
    with_gap = replay(law, [on] * 12 + [off] * 30 + [on] * 12)[:, 0]
    assert (with_gap[12:42] == 1.0).all()
    without = replay(law, [on] * 24)[:, 0]
    np.testing.assert_array_equal(np.concatenate([with_gap[:12], with_gap[42:]]), without)


@pytest.mark.parametrize("law", [EntropyCoverage(dwell=1), SeedCoverage()])
def test_a_non_finite_entropy_holds_the_coverage(law: EntropyCoverage) -> None:
    with np.errstate(invalid="ignore"):
        path = _path(law, [1.0] * 30 + [np.nan, np.inf, -np.inf])
    assert (path[-4:] == path[-4]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedCoverage(coverage=0.0), r"coverage must lie in \(0, 0.99\]"),
        (lambda: FixedCoverage(coverage=0.995), "got coverage=0.995"),
        (lambda: EntropyCoverage(p_min=0.99, p_max=0.9), "p_min must not exceed p_max"),
        (lambda: EntropyCoverage(dwell=0), "dwell must be one step or more; got dwell=0"),
        (lambda: SeedCoverage(h_low=3.0), "h_low < h_high"),
    ],
)
def test_bad_gains_are_refused_by_name(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
