"""Mirostat on a Zipf model: what it holds at tau, its formula, its traps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.samplers import MirostatV1, MirostatV2, rows
from controllers.samplers.mirostat import MirostatState, log_quotient, zipf_exponent
from tests.samplers.plants import kept, on_fixed_row, zipf
from tests.strategies import Float64, logits, token_signal


def _bits(row: Float64) -> Float64:
    return -(row - np.log(np.exp(row - row.max()).sum()) - row.max()) / math.log(2.0)


def _at(mu: float) -> MirostatState:
    return MirostatState(np.array([mu]))


@given(logits(), st.floats(-2.0, 30.0))
def test_version_two_keeps_tokens_whose_surprise_is_at_most_mu(row: Float64, mu: float) -> None:
    bits = _bits(row)
    clear = np.abs(bits - mu) > 1e-9
    got = np.isin(np.arange(len(row)), kept(MirostatV2(), row, _at(mu)))
    assert (got == ((bits <= mu) | (row == row.max())))[clear].all()


@given(st.floats(1.0, 14.0), st.floats(0.3, 4.0), st.integers(0, 1000))
def test_version_one_keeps_the_k_of_its_formula(mu: float, slope: float, seed: int) -> None:
    n = 120
    row = np.sort(-slope * np.log(np.arange(1, n + 1)) + np.random.default_rng(seed).normal(size=n))
    row = row[::-1]
    p = np.exp(row) / np.exp(row).sum()
    i = np.arange(100)
    t = np.log((i + 2) / (i + 1))
    s = (np.log(p[i] / p[i + 1]) * t).sum() / (t * t).sum()
    k = ((s - 1) * 2**mu / (1 - 50_000 ** -(s - 1))) ** (1 / s)
    if abs(k - math.floor(k) - 0.5) > 1e-6:
        assert len(kept(MirostatV1(n=50_000), row, _at(mu))) == min(round(k) + 1, n)
    if abs(k - round(k)) > 1e-4:
        floor = MirostatV1(n=50_000, plus_one=False)
        assert len(kept(floor, row, _at(mu))) == min(max(int(k), 1), n)


def test_the_fit_finds_the_exponent_of_a_zipf_row_and_skips_masked_tokens() -> None:
    row = zipf(300, 1.3)
    masked = np.concatenate([row[:50], np.full(250, -np.inf)])
    for z in (row, masked, np.random.default_rng(0).permutation(masked)):
        assert zipf_exponent(z[None, :], 100)[0] == pytest.approx(1.3)
    assert zipf_exponent(np.array([[1.0]]), 100)[0] == 0.0


def test_the_quotient_is_smooth_through_eps_zero_and_never_overflows() -> None:
    eps = np.concatenate([np.linspace(-1e-3, 1e-3, 2001), [-1.0, 3.0, 50.0, 1e4]])
    got = log_quotient(eps, 50_000)
    assert np.isfinite(got).all()
    assert got[1000] == pytest.approx(-math.log(math.log(50_000)))
    assert np.abs(np.diff(got[:2001])).max() < 1e-4
    for e, value in zip(eps[[0, -4, -3]], got[[0, -4, -3]], strict=True):
        assert value == pytest.approx(math.log(e / (1 - 50_000.0**-e)), abs=1e-6)
    assert got[-1] == pytest.approx(math.log(1e4))


@pytest.mark.parametrize("mu", [0.5, 40.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e3])
def test_nearly_uniform_and_needle_rows_keep_between_one_token_and_all(
    spread: float, mu: float
) -> None:
    row = np.random.default_rng(0).normal(0.0, 1.0, 200) * spread
    with np.errstate(all="raise", under="ignore"):
        assert 1 <= len(kept(MirostatV1(), row, _at(mu))) <= 200
    if mu == 1e4 and spread < 1.0:
        assert len(kept(MirostatV1(), row, _at(mu))) == 200  # an integer cast would keep one


@pytest.mark.parametrize("sampler", [MirostatV1(rate=0.1), MirostatV2(rate=0.1), MirostatV2()])
def test_it_holds_the_mean_surprise_before_truncation_at_tau(
    sampler: MirostatV1 | MirostatV2,
) -> None:
    run = on_fixed_row(sampler, zipf(), 500)
    assert run.pre[200:].mean() == pytest.approx(3.0, abs=0.02)


def test_surprise_after_truncation_is_another_quantity() -> None:
    post = MirostatV2(tau_bits=3.0, rate=0.1, surprise="post")
    run = on_fixed_row(post, zipf(), 500)
    assert run.post[200:].mean() == pytest.approx(3.0, abs=0.02)
    assert run.pre[200:].mean() == pytest.approx(3.98, abs=0.05)


def test_below_the_surprise_of_the_best_token_it_is_greedy_and_mu_winds_up() -> None:
    row = zipf()
    run = on_fixed_row(MirostatV2(tau_bits=2.0, rate=0.1), row, 300)
    assert (run.pre[100:] == _bits(row)[0]).all()
    mu = [float(state.mu[0]) for state in run.states]
    drift = 0.1 * (_bits(row)[0] - 2.0)
    np.testing.assert_allclose(np.diff(mu[200:]), -drift, atol=1e-9)


@given(st.floats(0.5, 6.0), st.floats(0.01, 1.0), st.integers(0, 10))
def test_mu_moves_by_rate_times_the_error_in_bits(tau: float, rate: float, token: int) -> None:
    row, lane = zipf(50)[None, :], token_signal()
    for mode in ("pre", "post"):
        law = MirostatV2(tau_bits=tau, rate=rate, surprise=mode)
        state = _at(20.0 if mode == "pre" else 5.0)
        shaped = law.shape(state, row, lane)
        seen = row if mode == "pre" else shaped.logits
        if shaped.logits[0, token] == -np.inf:
            continue
        bits = -rows.log_softmax(seen)[0, token] / math.log(2.0)
        after = law.accept(state, shaped, np.array([token]))
        assert after.mu[0] == pytest.approx(state.mu[0] - rate * (bits - tau))


@pytest.mark.parametrize("sampler", [MirostatV1(), MirostatV2(surprise="post")])
def test_a_token_that_was_cut_or_not_accepted_teaches_nothing(
    sampler: MirostatV1 | MirostatV2,
) -> None:
    state, lane, row = _at(1.0), token_signal(), zipf()[None, :]
    shaped = sampler.shape(state, row, lane)
    for token in (999, -1):
        assert sampler.accept(state, shaped, np.array([token])).mu[0] == 1.0


def test_the_published_constants() -> None:
    assert (MirostatV1().tau_bits, MirostatV1().rate, MirostatV1().pairs) == (3.0, 1.0, 100)
    for law in (MirostatV1.llama_cpp(), MirostatV2.llama_cpp()):
        assert (law.tau_bits, law.rate, law.surprise) == (5.0, 0.1, "post")
    assert MirostatV1().init(token_signal()).mu[0] == 6.0
    assert not MirostatV1.llama_cpp().plus_one
    assert MirostatV1.llama_cpp().pairs == 99


@pytest.mark.parametrize(
    ("sampler", "gains", "rule"),
    [
        (MirostatV1, {"tau_bits": 0.0}, "tau_bits"),
        (MirostatV1, {"pairs": 0}, "pairs"),
        (MirostatV1, {"n": 1}, "n must be >= 2"),
        (MirostatV1, {"surprise": "both"}, "surprise"),
        (MirostatV2, {"rate": -0.1}, "rate"),
        (MirostatV2, {"rate": math.inf}, "rate"),
        (MirostatV2, {"surprise": ""}, "surprise"),
    ],
)
def test_bad_parameters_are_refused_by_name(sampler: type, gains: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        sampler(**gains)
