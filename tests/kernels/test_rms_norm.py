"""RMS normalisation: small errors, rows that ignore each other, every width and format."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.native.build import find_compiler
from kernels.rms_norm import naive, native

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
EPS = 1e-5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 63, 64, 65, 130, 576, 4096])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rows_are_normalised_to_rounding(twin, dim, scale):
    x, weight = random(5, dim, seed=1) * scale, random(dim, seed=2)
    wide = x.double()
    exact = weight.double() * wide / (wide.square().mean(-1, keepdim=True) + EPS).sqrt()
    made = twin.rms_norm(x, weight, EPS)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), exact, rtol=1e-6, atol=0.0)


@needs_compiler
def test_a_row_does_not_depend_on_the_batch_or_the_threads():
    x, weight = random(300, 576, seed=3), random(576, seed=4)  # enough for threads to be used
    whole, threads = native.rms_norm(x, weight, EPS), torch.get_num_threads()
    for rows in (1, 2, 17):
        assert torch.equal(native.rms_norm(x[:rows], weight, EPS), whole[:rows])
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(native.rms_norm(x, weight, EPS), whole)
    finally:
        torch.set_num_threads(threads)


@needs_compiler
def test_a_row_of_nan_stays_with_itself():
    x, weight = random(3, 33, seed=5), random(33, seed=6)
    clean = native.rms_norm(x, weight, EPS)
    x[1, 32] = math.nan
    made = native.rms_norm(x, weight, EPS)
    assert bool(made[1].isnan().all())
    assert torch.equal(made[[0, 2]], clean[[0, 2]])


def test_leading_dimensions_and_strides_are_kept():
    x, weight = random(33, 3, 2, seed=7).permute(2, 1, 0), random(33, seed=8)
    made = native.rms_norm(x, weight, EPS)
    assert made.shape == (2, 3, 33)
    torch.testing.assert_close(made[1, 2], naive.rms_norm(x[1, 2], weight, EPS))
    assert native.rms_norm(x[:0], weight, EPS).shape == (0, 3, 33)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_keep_theirs(dtype):
    x, weight = random(4, 33, seed=9).to(dtype), random(33, seed=10).to(dtype)
    made = native.rms_norm(x, weight, EPS)
    assert made.dtype == dtype
    assert torch.equal(made, naive.rms_norm(x, weight, EPS))


@needs_compiler
def test_a_weight_of_another_width_is_refused():
    with pytest.raises(ValueError, match="last axis of 8, the weight's; got 16"):
        native.rms_norm(random(2, 16), random(8), EPS)
