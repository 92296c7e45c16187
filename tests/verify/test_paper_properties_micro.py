"""Properties P1, P2, P11 and P12 of the research notes, each by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from controllers import certificates
from controllers.clock import net_nats, tau_nats
from controllers.entropy import entropy_varentropy, max_varentropy
from controllers.temperature import EntropyFeedback, SeedLiteral
from reports.verify.draw import draw
from reports.verify.micro import Stability, frozen
from reports.verify.micro_cases import by_plant
from reports.verify.micro_loop import Path, run
from reports.verify.plants import peak_levels, random_rows
from reports.verify.property import Cases
from tests.laws.plants import ar1, on_linear_plant
from tests.strategies import Float64, log_temperatures, logits

N = max_varentropy(50_257)
LANES = 2_000


def _cases(seed: int = 0) -> Cases:
    return draw(Stability().space(EntropyFeedback()), np.random.default_rng(seed), LANES)


def _paths(law: object, steps: int) -> list[Path]:
    return [run(law, plant, frozen(cases, steps)) for _, cases, plant in by_plant(_cases())]


@given(logits(), log_temperatures)
def test_p1_varentropy_lies_between_zero_and_the_largest_for_n_outcomes(
    row: Float64, x: float
) -> None:
    v = float(entropy_varentropy(row, x)[1])
    assert 0.0 <= v <= max_varentropy(len(row)) * (1 + 1e-9)


def test_p1_the_largest_varentropy_is_attained_and_never_passed_by_any_plant() -> None:
    n = np.array([2, 50, 1_000, 50_257])
    v = peak_levels(n, np.zeros(4)).response(np.zeros(4))[1]
    np.testing.assert_allclose(v, [max_varentropy(int(k)) for k in n], rtol=1e-9)
    some = {name: column[:400] for name, column in _cases().items()}
    for _, cases, plant in by_plant(some):
        known = np.exp(plant.most_nats()).round().astype(int)
        top = np.array([max_varentropy(int(k)) for k in known])
        for x in np.linspace(-1.2, 0.6, 7):
            v = plant.response(np.full(plant.lanes, x))[1]
            assert (v >= 0.0).all()
            assert (v <= top * (1 + 1e-9)).all(), cases


def test_p2_the_corrected_law_contracts_without_overshoot_up_to_the_reciprocal_of_n() -> None:
    law = EntropyFeedback(gain=1 / N, c=1e9, rate=1e9)
    for path in _paths(law, 8):
        before, after = path.error_in, path.error
        assert (np.abs(after) <= np.abs(before) + 1e-12).all()
        assert (before * after >= -1e-12).all()
        moved = (path.v_in > 1e-3) & (np.abs(before) > 1e-4)  # V > 0: the step is strict
        assert (np.abs(after[moved]) < np.abs(before[moved])).all()
        assert moved.any()


def test_p2_the_printed_law_multiplies_the_error_by_more_than_one() -> None:
    law, expanded = SeedLiteral(), 0
    for path in _paths(law, 1):
        inside = (path.u > law.x_min) & (path.u < law.x_max) & (np.abs(path.error_in) > 1e-4)
        before, after = path.error_in[inside], path.error[inside]
        secant = (path.h_in - path.target)[inside] / before
        np.testing.assert_allclose(after / before, 1 + law.eta * secant, rtol=1e-6)
        assert (np.abs(after) >= np.abs(before)).all()
        expanded += int((np.abs(after) > 1.01 * np.abs(before)).sum())
    assert expanded > LANES // 4


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("k", [0.2, 0.8])
def test_p11_the_variance_ratio_under_ar1_entropy_follows_its_formula(rho: float, k: float) -> None:
    lagged, same_step = on_linear_plant(k / 2.0, 2.0, ar1(rho, 300, 800, seed=4))
    assert lagged[200:].var() == pytest.approx(certificates.variance_ratio(k, rho), rel=0.05)
    ratio = certificates.same_step_variance_ratio(k, rho)
    assert same_step[200:].var() == pytest.approx(ratio, rel=0.05)


def test_p11_variance_falls_only_above_the_least_correlation() -> None:
    for k in (0.1, 0.5, 1.0):
        edge = certificates.least_correlation(k)
        assert certificates.variance_ratio(k, edge) == pytest.approx(1.0)
        assert certificates.variance_ratio(k, edge - 0.05) > 1.0
        assert certificates.variance_ratio(k, edge + 0.05) < 1.0


def test_p12_alternating_temperature_games_the_papers_clock_but_not_the_one_at_t_cal() -> None:
    plant = random_rows(np.arange(400), np.full(400, 3.0))  # one row of logits per token
    calm = np.zeros(400)
    gaming = np.where(np.arange(400) % 2 == 0, np.log(1.5), np.log(0.6))
    at_t_cal, gamed = plant.response(calm)[0], plant.response(gaming)[0]
    assert tau_nats(gamed) > 2.0 * tau_nats(at_t_cal)  # with no token any surer
    assert abs(net_nats(at_t_cal)) < 0.1 * tau_nats(at_t_cal)  # even this was noise


def test_p12_a_stationary_sequence_runs_the_papers_clock_at_half_its_mean_step() -> None:
    h = 3.0 + ar1(0.5, 40, 2_000).T
    pace = tau_nats(h) / (h.shape[-1] - 1)
    np.testing.assert_allclose(pace, 0.5 * np.abs(np.diff(h)).mean(axis=-1), atol=2e-3)
    assert pace.mean() > 0.35
