"""The Triton row statistics against their definition, over a table of shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.row_stats import fused, naive
from kernels.row_stats.naive import Drawn, RowStats
from tests.kernels.guards import Guarded, device, poisoned

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INF, NAN = math.inf, math.nan

SHAPES = [
    # rows, logits, temperatures, type
    (1, 1, 1, FP32),
    (1, 2, 3, FP32),
    (3, 127, 2, FP16),
    (2, 4096, 2, FP32),
    (2, 4097, 1, FP32),
    (1, 49152, 2, FP32),
    (2, 9001, 3, BF16),
    (1, 150001, 1, FP16),
]


def rows(count: int, n: int, dtype: torch.dtype = FP32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, n, generator=generator) * 4).to(dtype)


def measured(logits: Tensor, x: Tensor) -> RowStats:
    """Run the kernel between guards; the logits' rows are followed by NaN."""
    guarded, place = Guarded(), device()
    wide = poisoned(logits, logits.shape[1] + 5).to(place)[:, : logits.shape[1]]
    stats = fused.row_stats(wide, x.to(place), workspace=guarded)
    guarded.check()
    return RowStats(*(part.cpu() for part in stats))


def drawn(logits: Tensor, x: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    guarded, place = Guarded(), device()
    wide = poisoned(logits, logits.shape[1] + 5).to(place)[:, : logits.shape[1]]
    args = (part.to(place) for part in (x, seeds, positions))
    tokens = fused.gumbel_sample(wide, *args, workspace=guarded)
    guarded.check()
    return tokens.cpu()


def close(got: RowStats, want: RowStats) -> None:
    assert torch.equal(got.argmax, want.argmax)
    for name, bound in (("lse", 5e-6), ("h", 2e-5), ("v", 2e-4)):
        mine, theirs = getattr(got, name), getattr(want, name)
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=bound, equal_nan=True, msg=name)


@pytest.mark.parametrize(("count", "n", "m", "dtype"), SHAPES)
def test_statistics_are_those_of_float64(count, n, m, dtype):
    logits, x = rows(count, n, dtype), torch.linspace(-1.5, 1.0, count * m).view(count, m)
    z = logits.double()[:, None] / torch.exp(x.double())[..., None]  # [S, m, n]
    log_p = z.log_softmax(-1)
    h = -(log_p.exp() * log_p).sum(-1)
    v = (log_p.exp() * (log_p + h[..., None]).square()).sum(-1)
    want = RowStats(logits.argmax(-1), *(part.float() for part in (z.logsumexp(-1), h, v)))
    close(measured(logits, x), want)


EXTREMES = {
    "uniform": lambda z: torch.full_like(z, 3.25),
    "one-hot": lambda z: torch.full_like(z, -INF).index_fill_(1, torch.tensor([7]), 1.5),
    "one far ahead": lambda z: z.index_fill_(1, torch.tensor([4500]), 3e4),
    "half masked": lambda z: z.index_fill_(1, torch.arange(0, z.shape[1], 2), -INF),
    "first split masked": lambda z: z.index_fill_(1, torch.arange(4096), -INF),
    "masked by a huge finite number": lambda z: z.index_fill_(1, torch.arange(4096), -3e38),
    "all masked": lambda z: torch.full_like(z, -INF),
    "a NaN": lambda z: z.index_fill_(1, torch.tensor([4999]), NAN),
    "only NaN": lambda z: torch.full_like(z, NAN),
    "a +inf": lambda z: z.index_fill_(1, torch.tensor([0]), INF),
    "+inf and NaN": lambda z: z.index_fill_(1, torch.tensor([1]), NAN).index_fill_(
        1, torch.tensor([0]), INF
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_rows_measure_as_the_definition_does(name):
    logits = EXTREMES[name](rows(1, 5000))
    x = torch.tensor([[0.0, -60.0, 60.0]])
    close(measured(logits, x), naive.row_stats(logits, x))


def test_a_row_beyond_measure_leaves_its_neighbours_alone():
    logits = rows(3, 5000)
    x = torch.zeros(3, 1)
    alone = measured(logits, x)
    logits[1, 2] = NAN
    both = measured(logits, x)
    assert both.argmax[1] == -1
    assert both.h[1].isnan().all()
    for mine, theirs in zip(both, alone, strict=True):
        assert torch.equal(mine[::2], theirs[::2])


def test_a_row_measures_the_same_alone_and_in_company():
    logits, x = rows(5, 4200), torch.linspace(-1.0, 1.0, 10).view(5, 2)
    together = measured(logits, x)
    for i in range(5):
        apart = measured(logits[i : i + 1], x[i : i + 1])
        assert all(torch.equal(a[i : i + 1], b) for a, b in zip(together, apart, strict=True))


def test_ties_go_to_the_first_index_across_splits():
    logits = torch.zeros(1, 9000)
    logits[0, [4095, 4096, 8999]] = 2.0
    assert measured(logits, torch.zeros(1, 1)).argmax.tolist() == [4095]


@pytest.mark.parametrize(("count", "n", "m", "dtype"), [s for s in SHAPES if s[1] < 1e5])
def test_draws_are_those_of_the_definition(count, n, m, dtype):
    generator = torch.Generator().manual_seed(n)
    logits, x = rows(count, n, dtype), torch.rand(count, generator=generator)
    seeds = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    positions = torch.randint(0, 2**31 - 1, (count,), generator=generator)
    want = naive.gumbel_sample(logits, x, seeds, positions)
    assert torch.equal(drawn(logits, x, seeds, positions), want)


def test_draws_fall_on_tokens_with_probability_and_name_rows_without_any():
    logits = rows(4, 5000)
    logits[0, :4999] = -INF
    logits[1] = -INF
    logits[2, 3] = NAN
    logits[3, 3] = INF
    ids = torch.arange(4)
    assert drawn(logits, torch.full((4,), 60.0), ids, ids).tolist() == [4999, -1, -1, -1]


def inverted(logits: Tensor, x: Tensor, noise: Tensor) -> Drawn:
    guarded, place = Guarded(), device()
    wide = poisoned(logits, logits.shape[1] + 5).to(place)[:, : logits.shape[1]]
    got = fused.draw(wide, x.to(place), noise.to(place), workspace=guarded)
    guarded.check()
    return Drawn(got.tokens.cpu(), got.h.cpu())


@pytest.mark.parametrize(("count", "n", "m", "dtype"), [s for s in SHAPES if s[1] < 1e5])
def test_inverting_the_cdf_draws_what_the_definition_draws(count, n, m, dtype):
    generator = torch.Generator().manual_seed(n)
    logits, x = rows(count, n, dtype), torch.rand(count, generator=generator)
    noise = torch.rand(count, generator=generator, dtype=torch.float64)
    got, want = inverted(logits, x, noise), naive.draw(logits, x, noise)
    assert torch.equal(got.tokens, want.tokens)
    torch.testing.assert_close(got.h, want.h, rtol=0, atol=2e-5)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0 - 2.0**-53])
def test_inverting_the_cdf_never_lands_on_a_masked_token(draw):
    logits = rows(6, 9000)
    logits[0, :8191] = logits[0, 8193:] = -INF
    logits[1, :5000] = -INF
    logits[2, 4000:] = -INF
    logits[3] = -INF
    logits[4, 5] = NAN
    logits[5, 5] = INF
    x, noise = torch.zeros(6), torch.full((6,), draw, dtype=torch.float64)
    got = inverted(logits, x, noise).tokens
    assert got.tolist() == naive.draw(logits, x, noise).tokens.tolist()
    assert bool((logits[torch.arange(3), got[:3]] > -INF).all())
    assert got[3:].tolist() == [-1, -1, -1]


def test_logits_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"logits: must be float16, bfloat16 or float32"):
        fused.row_stats(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 1))
