"""Sampling: the right frequencies, one draw per (seed, position), and nothing impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backend.sampler import sample, uniforms
from controllers import entropy
from tests.strategies import log_temperatures, logits

DRAWS = 8000


def draw(rows: Tensor, x: float, noise: Tensor, *, greedy: bool = False) -> Tensor:
    n = len(rows)
    heat, still = torch.full((n,), x), torch.full((n,), greedy)
    return sample(rows, heat, still, rows.argmax(-1), noise).tokens


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_softmax_at_the_commanded_temperature(temperature):
    row = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -float("inf"), -4.0])
    noise = uniforms(list(range(DRAWS)), [5] * DRAWS)
    tokens = draw(row.expand(DRAWS, -1), math.log(temperature), noise)
    p = (row.double() / temperature).softmax(-1)
    counts = torch.bincount(tokens, minlength=len(row)).double()
    sigma = (DRAWS * p * (1 - p)).sqrt()
    assert torch.all((counts - DRAWS * p).abs() <= 4.5 * sigma)
    possible = p > 0
    chi_square = ((counts - DRAWS * p).square() / (DRAWS * p))[possible].sum()
    assert float(chi_square) < 20.5  # 99.9 % point of five degrees of freedom


@given(logits(), log_temperatures, st.floats(0.0, 1.0, exclude_max=True))
def test_a_token_without_probability_is_never_drawn(row, x, u):
    rows = torch.tensor(row[None], dtype=torch.float32)
    for noise in (u, 0.0, 1.0 - 2.0**-53):
        token = draw(rows, x, torch.tensor([noise], dtype=torch.float64))
        assert float((rows[0] * math.exp(-x)).softmax(-1)[token]) > 0.0


@given(logits(), st.floats(0.0, 1.0, exclude_max=True))
def test_greedy_rows_take_the_largest_logit_whatever_the_noise(row, u):
    rows = torch.tensor(row[None], dtype=torch.float32)
    noise = torch.tensor([u], dtype=torch.float64)
    assert draw(rows, 0.0, noise, greedy=True).tolist() == [int(rows.argmax())]


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-40])
def test_a_vanishing_temperature_is_greedy(temperature):
    rows = torch.randn(200, 50, generator=torch.Generator().manual_seed(1)) * 5
    rows[:, 3] = -float("inf")
    noise = uniforms(list(range(200)), [0] * 200)
    tokens = draw(rows, math.log(temperature), noise)
    assert torch.equal(tokens, rows.argmax(-1))


def test_an_enormous_temperature_is_uniform_over_what_is_possible():
    rows = torch.randn(900, 10, generator=torch.Generator().manual_seed(1)) * 5
    rows[:, 3] = -float("inf")
    tokens = draw(rows, 120.0, uniforms(list(range(900)), [0] * 900))
    counts = torch.bincount(tokens, minlength=10)
    assert counts[3] == 0
    others = counts[torch.arange(10) != 3]
    assert others.min() > 60
    assert others.max() < 140


def test_a_draw_depends_on_seed_and_position_not_on_the_batch():
    seeds, positions = [3, 3, 4, 2**62, 3], [0, 1, 0, 7, 0]
    together = uniforms(seeds, positions)
    alone = torch.cat([uniforms([s], [p]) for s, p in zip(seeds, positions, strict=True)])
    assert torch.equal(together, alone)
    assert together[0] == together[4]
    assert len(set(together[:4].tolist())) == 4
    assert together.dtype == torch.float64
    assert torch.all((together >= 0) & (together < 1))


@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 2)), min_size=1, max_size=9
    )
)
def test_uniforms_are_the_first_draws_of_numpys_own_generator(pairs):
    seeds, positions = (list(part) for part in zip(*pairs, strict=True))
    own = [
        np.random.Generator(np.random.Philox(key=seed, counter=position)).random()
        for seed, position in pairs
    ]
    assert uniforms(seeds, positions).tolist() == own


def test_a_step_without_samples_draws_no_noise():
    assert uniforms([], []).shape == (0,)


@given(logits(), log_temperatures)
def test_sampling_measures_the_entropy_it_drew_at(row, x):
    rows = torch.tensor(row[None], dtype=torch.float32)
    heat = torch.tensor([x])
    still = torch.tensor([False])
    drawn = sample(rows, heat, still, rows.argmax(-1), torch.tensor([0.5], dtype=torch.float64))
    expected = entropy.entropy_varentropy(row.astype(np.float32), np.float32(x))[0]
    assert float(drawn.h[0]) == pytest.approx(float(expected), abs=1e-4)


def test_rows_of_one_batch_are_drawn_independently():
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(6, 30, generator=generator)
    noise = uniforms(list(range(6)), [2] * 6)
    x = torch.linspace(-1.0, 0.5, 6)
    greedy = torch.tensor([False, True] * 3)
    largest = rows.argmax(-1)
    together = sample(rows, x, greedy, largest, noise)
    for i in range(6):
        one = slice(i, i + 1)
        alone = sample(rows[one], x[one], greedy[one], largest[one], noise[one])
        assert torch.equal(alone.tokens, together.tokens[one])
        assert torch.equal(alone.h, together.h[one])
