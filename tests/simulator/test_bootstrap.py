from __future__ import annotations

import numpy as np
import pytest

from simulator.bootstrap import Blocks, choose_blocks, gaps_s, politis_white, resampled
from traces.arrivals import Arrivals, Labels


def arrivals(times_s: np.ndarray, *, labelled: bool = False) -> Arrivals:
    n = len(times_s)
    labels = Labels.of([f"tenant {i % 3}" for i in range(n)]) if labelled else None
    return Arrivals(
        times_s=times_s - times_s[0],
        prompt_tokens=np.arange(1, n + 1),
        output_tokens=np.arange(1, n + 1) * 2,
        source="made up",
        tenants=labels,
    )


def autoregressive(n: int, rho: float, rng: np.random.Generator) -> np.ndarray:
    noise, values = rng.standard_normal(n), np.zeros(n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + noise[i]
    return values


def test_a_resample_is_made_of_blocks_of_the_recording():
    source = arrivals(np.cumsum(np.random.default_rng(1).exponential(1.0, 500)), labelled=True)
    found = resampled(source, Blocks(20, "asked"), np.random.default_rng(2))
    assert len(found) == 500
    assert found.times_s[0] == 0.0
    assert (np.diff(found.times_s) >= 0.0).all()
    rows = found.prompt_tokens - 1  # the recorded row each came from
    jumps = np.flatnonzero((np.diff(rows) % 500) != 1) + 1
    assert set(jumps % 20) == {0}
    np.testing.assert_allclose(gaps_s(source)[rows][1:], np.diff(found.times_s))
    assert (found.output_tokens == 2 * (rows + 1)).all()
    assert found.tenants is not None
    assert (found.tenants.codes == rows % 3).all()


def test_resampled_rates_vary_as_blocks_of_the_recording_do():
    rng = np.random.default_rng(3)
    source = arrivals(np.cumsum(rng.exponential(1.0, 4000)))
    draws = [
        resampled(source, Blocks(40, "asked"), np.random.default_rng(i)).rate_per_s
        for i in range(200)
    ]
    assert np.std(draws) == pytest.approx(1.0 / np.sqrt(4000), rel=0.25)
    assert np.mean(draws) == pytest.approx(source.rate_per_s, rel=0.01)


def test_dependent_series_get_longer_blocks_than_independent_ones():
    rng = np.random.default_rng(4)
    lengths = {rho: politis_white(autoregressive(5000, rho, rng)) for rho in (0.0, 0.5, 0.9)}
    assert lengths[0.0] <= 4
    assert lengths[0.0] < lengths[0.5] < lengths[0.9]
    # b = (2 g^2 / D)^(1/3) n^(1/3), D = 4/3 g(0)^2: for AR(1) g/g(0) = 2 rho / (1 - rho^2)
    for rho in (0.5, 0.9):
        exact = (1.5 * (2.0 * rho / (1.0 - rho**2)) ** 2 * 5000) ** (1.0 / 3.0)
        assert lengths[rho] == pytest.approx(exact, rel=0.35)


def test_a_block_lasts_a_minute_and_leaves_eight():
    rng = np.random.default_rng(5)
    long = choose_blocks(arrivals(np.cumsum(rng.exponential(0.1, 20_000))))
    assert long.length >= 590
    short = choose_blocks(arrivals(np.cumsum(rng.exponential(0.1, 400))))
    assert short.length == 50
    assert "an eighth" in short.reason
    assert choose_blocks(arrivals(np.arange(100.0)), block_s=10.0).length == 10


@pytest.mark.parametrize("block_s", [0.0, -1.0, float("nan")])
def test_a_block_without_length_is_refused(block_s):
    with pytest.raises(ValueError, match="block_s"):
        choose_blocks(arrivals(np.arange(100.0)), block_s=block_s)


def test_arrivals_at_one_instant_cannot_be_resampled():
    with pytest.raises(ValueError, match="two arrivals apart"):
        choose_blocks(arrivals(np.zeros(5)))
