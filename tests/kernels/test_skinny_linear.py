"""Few rows times a packed weight: exact packing, small errors, and rows that ignore each other."""

from __future__ import annotations

import pytest
import torch

from kernels.gated_silu.native import gated_silu
from kernels.native.build import find_compiler
from kernels.skinny_linear import naive, native

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
INPUTS = 33  # one specialisation serves every test


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 3), (17, 5), (130, 33)])
def test_a_packed_weight_is_given_back_exactly(outputs, inputs):
    weight = random(outputs, inputs)
    assert torch.equal(naive.unpack(naive.pack(weight), outputs), weight)


@needs_compiler
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 40])
@pytest.mark.parametrize("outputs", [1, 16, 90, 401])
@pytest.mark.parametrize("with_bias", [True, False])
def test_products_are_right_to_rounding(rows, outputs, with_bias):
    x, weight = random(rows, INPUTS, seed=1), random(outputs, INPUTS, seed=2)
    bias = random(outputs, seed=3) if with_bias else None
    made = native.linear(x, naive.pack(weight), outputs, bias)
    exact = x.double() @ weight.double().T + (0.0 if bias is None else bias.double())
    torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(made, naive.linear(x, naive.pack(weight), outputs, bias))
    assert made.shape == (rows, outputs)


@needs_compiler
def test_a_row_does_not_depend_on_the_batch_or_the_threads():
    x, packed = random(40, INPUTS, seed=4), naive.pack(random(401, INPUTS, seed=5))
    whole = native.linear(x, packed, 401, None)
    for rows in range(1, 20):
        assert torch.equal(native.linear(x[:rows], packed, 401, None), whole[:rows])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(native.linear(x, packed, 401, None), whole)
    finally:
        torch.set_num_threads(threads)


@needs_compiler
def test_a_row_of_nan_stays_with_itself():
    x, packed = random(9, INPUTS, seed=6), naive.pack(random(20, INPUTS, seed=7))
    clean = native.linear(x, packed, 20, None)
    x[4] = float("nan")
    made = native.linear(x, packed, 20, None)
    assert bool(made[4].isnan().all())
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(made[kept], clean[kept])


@needs_compiler
def test_leading_dimensions_and_strides_are_kept():
    x, packed = random(INPUTS, 3, 2, seed=8).permute(2, 1, 0), naive.pack(random(20, INPUTS))
    made = native.linear(x, packed, 20, None)
    assert made.shape == (2, 3, 20)
    assert torch.equal(made[1, 2], native.linear(x[1, 2], packed, 20, None))
    assert native.linear(x[:0], packed, 20, None).shape == (0, 3, 20)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65, 100])
@pytest.mark.parametrize("outputs", [16, 48, 80, 1536])
def test_a_gated_pair_has_the_bits_of_two_layers_and_a_gate(rows, outputs):
    generator = torch.Generator().manual_seed(rows * 10_000 + outputs)
    x = torch.randn(rows, 40, generator=generator)
    gate, up = (naive.pack(torch.randn(outputs, 40, generator=generator)) for _ in range(2))
    apart = [native.linear(x, weight, outputs, None) for weight in (gate, up)]
    made = native.gated_linear(x, gate, up, outputs)
    assert torch.equal(made, gated_silu(*apart))
    exact = [x.double() @ naive.unpack(w, outputs).double().T for w in (gate, up)]
    exact = exact[0] * exact[0].sigmoid() * exact[1]
    torch.testing.assert_close(made.double(), exact, rtol=2e-5, atol=1e-4)


def test_a_gated_pair_of_another_width_goes_through_two_layers():
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    gate, up = (naive.pack(torch.randn(20, 40)) for _ in range(2))
    assert native.gated_linear(x, gate, up, 20).shape == (3, 20)
