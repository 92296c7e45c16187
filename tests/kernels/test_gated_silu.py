"""The gate of a gated MLP: small errors at every size of input, no overflow, every format."""

from __future__ import annotations

import math

import pytest
import torch

from kernels.gated_silu import naive, native
from kernels.native.build import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 4095, 4096, 4097, 40_001])
def test_gates_are_right_to_rounding(twin, n):
    gate, up = random(n, seed=1) * 8.0, random(n, seed=2)
    exact = gate.double() * gate.double().sigmoid() * up.double()
    made = twin.gated_silu(gate, up)
    torch.testing.assert_close(made.double(), exact, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
def test_gates_far_from_zero_neither_overflow_nor_stick(twin):
    gate = torch.tensor([-1e30, -1e4, -89.0, -88.0, -0.0, 0.0, 88.0, 1e4, 1e30])
    made = twin.gated_silu(gate, torch.ones_like(gate))
    assert bool((made[:6].abs() < 1e-5).all())
    assert torch.equal(made[6:], gate[6:])


def test_nan_stays_where_it_is():
    gate, up = random(40, seed=3), random(40, seed=4)
    gate[7], up[35] = math.nan, math.nan
    made = native.gated_silu(gate, up)
    assert made.isnan().nonzero().flatten().tolist() == [7, 35]


@needs_compiler
def test_a_number_does_not_depend_on_its_place_or_the_threads():
    gate, up = random(40_001, seed=5), random(40_001, seed=6)
    whole, threads = native.gated_silu(gate, up), torch.get_num_threads()
    assert torch.equal(native.gated_silu(gate[7:9001], up[7:9001]), whole[7:9001])
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(native.gated_silu(gate, up), whole)
    finally:
        torch.set_num_threads(threads)


def test_leading_dimensions_and_strides_are_kept():
    gate, up = random(33, 3, 2, seed=7).permute(2, 1, 0), random(2, 3, 33, seed=8)
    made = native.gated_silu(gate, up)
    assert made.shape == (2, 3, 33)
    torch.testing.assert_close(made, naive.gated_silu(gate, up), rtol=1e-6, atol=1e-9)
    assert native.gated_silu(gate[:0], up[:0]).shape == (0, 3, 33)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_keep_theirs(dtype):
    gate, up = random(50, seed=9).to(dtype), random(50, seed=10).to(dtype)
    made = native.gated_silu(gate, up)
    assert made.dtype == dtype
    assert torch.equal(made, naive.gated_silu(gate, up))


@needs_compiler
def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"gate's shape \[4\]; got \[1\]"):
        native.gated_silu(random(4), random(1))
