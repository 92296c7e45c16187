"""Row statistics and draws: the torch definition and its C++ twin, against float64 and peers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from controllers import entropy
from kernels.native.build import find_compiler
from kernels.row_stats import naive, native

TWINS = pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
SHAPES = [(1, 1), (1, 2), (3, 15), (2, 16), (5, 17), (1, 4095), (2, 4096), (3, 4097), (2, 49_152)]
H_TOLERANCE, V_TOLERANCE = 1e-5, 1e-4


def rows_of(n_rows: int, n: int, *, spread: float = 4.0, seed: int = 0) -> Tensor:
    return torch.randn(n_rows, n, generator=torch.Generator().manual_seed(seed)) * spread


def noise_of(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=generator, dtype=torch.float64)


def test_a_machine_with_a_compiler_has_the_native_twin():
    if find_compiler() is None:
        pytest.skip("no C++ compiler: plain torch runs instead")
    assert native.available()


def test_without_a_compiler_plain_torch_runs(monkeypatch):
    monkeypatch.setattr(native, "_rows", lambda: None)
    monkeypatch.setattr(native, "_gumbel", lambda: None)
    z, x, noise, key = rows_of(3, 200), torch.zeros(3, 2), noise_of(3), torch.arange(3)
    assert not native.available()
    for expected, found in (
        (naive.row_stats(z, x), native.row_stats(z, x)),
        (naive.draw(z, x[:, 0], noise), native.draw(z, x[:, 0], noise)),
        ([naive.gumbel_sample(z, x[:, 0], key, key)], [native.gumbel_sample(z, x[:, 0], key, key)]),
    ):
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other)


@TWINS
@pytest.mark.parametrize(("n_rows", "n"), [*SHAPES, (1, 151_936)])
def test_statistics_match_float64(twin, n_rows, n):
    z = rows_of(n_rows, n, seed=n)
    z[:, 1::7] = -math.inf
    x = torch.tensor([0.0, -0.7, 0.5]).expand(n_rows, 3)
    found = twin.row_stats(z, x)
    h, v = entropy.entropy_varentropy(z.numpy()[:, None], x.numpy())
    lse = torch.logsumexp(z.double()[:, None] * torch.exp(-x.double())[..., None], -1)
    np.testing.assert_allclose(found.h, h, rtol=0, atol=H_TOLERANCE)
    np.testing.assert_allclose(found.v, v, rtol=0, atol=V_TOLERANCE)
    np.testing.assert_allclose(found.lse, lse, rtol=1e-6, atol=1e-5)
    assert torch.equal(found.argmax, z.argmax(-1))


@TWINS
@pytest.mark.parametrize("spread", [0.0, 0.3, 10.0, 100.0])
def test_statistics_match_float64_from_uniform_to_one_hot_rows(twin, spread):
    z = rows_of(4, 20_000, spread=spread)
    x = torch.tensor([[0.0], [-1.2], [0.6], [3.0]])
    found = twin.row_stats(z, x)
    h, v = entropy.entropy_varentropy(z.numpy()[:, None], x.numpy())
    np.testing.assert_allclose(found.h, h, rtol=0, atol=H_TOLERANCE)
    np.testing.assert_allclose(found.v, v, rtol=0, atol=V_TOLERANCE)


@TWINS
@pytest.mark.parametrize("n", [1, 40, 9000])
def test_a_row_with_one_token_left_has_no_entropy_and_is_always_drawn(twin, n):
    z = torch.full((1, n), -math.inf)
    z[0, n // 2] = -3.0
    for x in (-20.0, 0.0, 2.0):
        found = twin.row_stats(z, torch.tensor([[x]]))
        assert found.h.item() == pytest.approx(0.0, abs=1e-30)
        assert found.v.item() == pytest.approx(0.0, abs=1e-30)
        assert found.lse.item() == pytest.approx(-3.0 * math.exp(-x), rel=1e-6)
        for u in (0.0, 0.5, 1.0 - 2.0**-53):
            drawn = twin.draw(z, torch.tensor([x]), torch.tensor([u], dtype=torch.float64))
            assert drawn.tokens.tolist() == [n // 2]
        key = torch.tensor([5])
        assert twin.gumbel_sample(z, torch.tensor([x]), key, key).tolist() == [n // 2]


@TWINS
@pytest.mark.parametrize("x", [-120.0, -40.0, 40.0, 120.0])
def test_statistics_stay_finite_at_extreme_temperatures(twin, x):
    z = rows_of(2, 5000)
    z[:, ::3] = -math.inf
    found = twin.row_stats(z, torch.full((2, 1), x))
    expected = 0.0 if x < 0 else math.log(int(z[0].isfinite().sum()))
    assert found.h.tolist() == [[pytest.approx(expected, abs=1e-5)]] * 2
    assert found.v.tolist() == [[pytest.approx(0.0, abs=1e-5)]] * 2


@TWINS
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 4100, 8999])
def test_a_spoiled_row_is_marked_and_leaves_the_others_alone(twin, value, where):
    z = rows_of(3, 9000)
    x, noise, key = torch.zeros(3, 2), noise_of(3), torch.arange(3)
    clean = twin.row_stats(z, x), twin.draw(z, x[:, 0], noise)
    sampled = twin.gumbel_sample(z, x[:, 0], key, key)
    z[1, where] = value
    found, drawn = twin.row_stats(z, x), twin.draw(z, x[:, 0], noise)
    assert (found.argmax[1], drawn.tokens[1]) == (-1, -1)
    assert all(part[1].isnan().all() for part in (found.lse, found.h, found.v, drawn.h))
    others = torch.tensor([0, 2])
    for before, after in zip((*clean[0], *clean[1]), (*found, *drawn), strict=True):
        assert torch.equal(before[others], after[others])
    again = twin.gumbel_sample(z, x[:, 0], key, key)
    assert again[1] == -1
    assert torch.equal(again[others], sampled[others])


@TWINS
def test_a_row_with_nothing_left_is_marked(twin):
    z, key = torch.full((1, 5000), -math.inf), torch.tensor([1])
    found = twin.row_stats(z, torch.zeros(1, 1))
    assert found.argmax.tolist() == [-1]
    assert all(part.isnan().all() for part in (found.lse, found.h, found.v))
    assert twin.draw(z, torch.zeros(1), noise_of(1)).tokens.tolist() == [-1]
    assert twin.gumbel_sample(z, torch.zeros(1), key, key).tolist() == [-1]


@TWINS
def test_the_first_of_tied_logits_is_the_largest(twin):
    z = torch.zeros(1, 9000)
    z[0, [4097, 4100, 8500]] = 2.0
    assert twin.row_stats(z, torch.zeros(1, 1)).argmax.tolist() == [4097]


@TWINS
def test_a_row_does_not_depend_on_its_batch(twin):
    z = rows_of(6, 5000)
    x = torch.linspace(-1.0, 0.5, 6)[:, None]
    noise, key = noise_of(6), torch.arange(6)
    together = twin.row_stats(z, x), twin.draw(z, x[:, 0], noise)
    sampled = twin.gumbel_sample(z, x[:, 0], key, key + 3)
    for i in range(6):
        one = slice(i, i + 1)
        alone = (*twin.row_stats(z[one], x[one]), *twin.draw(z[one], x[one, 0], noise[one]))
        for part, mine in zip((*together[0], *together[1]), alone, strict=True):
            assert torch.equal(part[one], mine)
        mine = twin.gumbel_sample(z[one], x[one, 0], key[one], key[one] + 3)
        assert torch.equal(mine, sampled[one])


def test_threads_and_row_strides_change_no_bit_of_the_native_twin():
    wide = rows_of(5, 13_000)
    z, x, noise, key = wide[:, 300:12_345], torch.zeros(5, 1), noise_of(5), torch.arange(5)

    def everything(rows: Tensor) -> tuple[Tensor, ...]:
        drawn = native.draw(rows, x[:, 0], noise)
        return *native.row_stats(rows, x), *drawn, native.gumbel_sample(rows, x[:, 0], key, key)

    one = everything(z.contiguous())
    torch.set_num_threads(3)  # put back by the folder's fixture
    for rows in (z, z.contiguous(), z.t().contiguous().t()):
        for first, other in zip(one, everything(rows), strict=True):
            assert torch.equal(first, other)
    torch.set_num_threads(1)


def test_half_precision_rows_are_measured_in_float32():
    z = rows_of(2, 300).bfloat16()
    x = torch.zeros(2, 1)
    for half, full in zip(native.row_stats(z, x), native.row_stats(z.float(), x), strict=True):
        assert torch.equal(half, full)


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
@pytest.mark.parametrize("temperature", [0.4, 1.0, 5.0])
def test_the_twins_draw_the_same_tokens(n_rows, n, temperature):
    z = rows_of(n_rows, n, seed=n + 1)
    z[:, 1::5] = -math.inf
    x = torch.full((n_rows,), math.log(temperature))
    d = z.double() / temperature
    cumulative = d.softmax(-1).cumsum(-1)
    for u in (0.0, 0.3, 0.9, 1.0 - 2.0**-53):
        noise = torch.full((n_rows,), u, dtype=torch.float64)
        expected, found = naive.draw(z, x, noise), native.draw(z, x, noise)
        torch.testing.assert_close(found.h, expected.h, rtol=0, atol=H_TOLERANCE)
        for row, (a, b) in enumerate(
            zip(expected.tokens.tolist(), found.tokens.tolist(), strict=True)
        ):
            # Rounding may pick the neighbour of a draw that falls on the border of two tokens.
            border = abs(float(cumulative[row, min(a, b)]) - u) < 1e-6
            assert a == b or border
            assert z[row, b] > -math.inf


@TWINS
def test_draws_follow_the_softmax(twin):
    n = 20_000
    row = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -math.inf, -4.0])
    z, x = row.expand(n, -1), torch.full((n,), math.log(1.3))
    keys = torch.arange(n)
    p = (row.double() / 1.3).softmax(-1)
    drawn = (
        twin.draw(z, x, noise_of(n)).tokens,
        twin.gumbel_sample(z, x, keys, torch.zeros_like(keys)),
        twin.gumbel_sample(z, x, torch.zeros_like(keys) - 7, keys),
    )
    for tokens in drawn:
        counts = torch.bincount(tokens, minlength=len(row)).double()
        possible = p > 0
        chi_square = ((counts - n * p).square() / (n * p))[possible].sum()
        assert counts[5] == 0
        assert float(chi_square) < 20.5  # 99.9 % point of five degrees of freedom


@pytest.mark.parametrize(("n_rows", "n"), SHAPES)
def test_the_twins_agree_on_gumbel_draws(n_rows, n):
    z = rows_of(n_rows, n, seed=n + 2)
    x = torch.linspace(-0.5, 0.5, n_rows)
    seeds = torch.arange(n_rows) * 2**61 - 5
    positions = 2**31 - 1 - torch.arange(n_rows)
    expected = naive.gumbel_sample(z, x, seeds, positions)
    found = native.gumbel_sample(z, x, seeds, positions)
    noise = naive.uniform(seeds[:, None], positions[:, None], torch.arange(n))
    scores = z * naive.inverse_temperature(x)[:, None] + naive.gumbel(noise)
    gap = scores.gather(1, expected[:, None]) - scores.gather(1, found[:, None])
    assert float(gap.max()) <= 1e-5  # equal but for a tie within rounding


def philox4x32(counter: list[int], key: list[int]) -> list[int]:
    """One block of ten rounds in plain integers."""
    c, k, word = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & word, (p0 >> 32) ^ c[3] ^ k[1], p0 & word]
        k = [(k[0] + 0x9E3779B9) & word, (k[1] + 0xBB67AE85) & word]
    return c


def test_the_noise_is_philox_as_published():
    """Known answers of Random123 for philox4x32-10, then ours against the same rounds."""
    full, pi = 0xFFFFFFFF, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert philox4x32([0] * 4, [0] * 2)[0] == 0x6627E8D5
    assert philox4x32([full] * 4, [full] * 2)[0] == 0x408F276D
    assert philox4x32(pi, [0xA4093822, 0x299F31D0])[0] == 0xD16CFE09
    for seed, position, token in [(0, 0, 0), (7, 2**31 - 1, 49_151), (-(2**40) - 3, 5, 1)]:
        word = philox4x32([token, position, 0, 0], [seed & full, seed >> 32 & full])[0]
        folded = word if word < 2**31 else full - word
        u = naive.uniform(torch.tensor(seed), torch.tensor(position), torch.tensor(token))
        assert float(u) == np.float32(folded) * np.float32(4.6566127342e-10)


def test_uniforms_are_uniform_and_differ_by_seed_position_and_token():
    seeds, positions = (
        torch.tensor([[3], [4], [3], [-3]]),
        torch.tensor([[0], [0], [1], [2**31 - 1]]),
    )
    u = naive.uniform(seeds, positions, torch.arange(50_000))
    assert u.dtype == torch.float32
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert float((u.mean(-1) - 0.5).abs().max()) < 4 * math.sqrt(1 / 12 / 50_000)
    correlation = torch.corrcoef(u)
    assert float((correlation - torch.eye(4)).abs().max()) < 0.02


def test_gumbel_noise_stays_finite_at_both_ends():
    ends = torch.tensor([0.0, 2.0**-31, 2.0**-6, 0.5, 1.0 - 2.0**-24])
    exact = -np.log(-np.log1p(-np.maximum(ends.double().numpy(), 2.0**-32)))
    np.testing.assert_allclose(naive.gumbel(ends), exact, rtol=1e-5, atol=1e-5)
