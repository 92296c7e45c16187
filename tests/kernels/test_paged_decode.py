"""Paged attention against brute force in float64; the compiled twin against the naive one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.native.build import find_compiler
from kernels.paged_decode import naive, native
from kernels.paged_decode.naive import Decoded
from kernels.paged_decode.prefill import prefill
from tests.kernels.pages import Layer, Shape, attend

TWINS = pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
SHAPES = [
    Shape(B=1, n=1),
    Shape(B=1, H=1, n=3),
    Shape(B=4, n=17),
    Shape(B=2, n=200),  # several chunks of the compiled twin
    Shape(B=2, H=3, G=3, D=64, P=16, n=70),
    Shape(B=5, H=1, G=1, D=80, P=16, n=6),
    Shape(B=2, H=2, G=8, D=128, P=16, n=5),
    Shape(B=2, H=1, G=4, D=16, P=16, n=9),
]
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here")


def decode(twin, layer: Layer, lists: tuple[Tensor, Tensor, Tensor], *, watched: bool = False):
    pages, kept, tails = lists
    return twin.decode_pages(
        layer.q,
        layer.k,
        layer.v,
        pages,
        kept,
        tails,
        layer.scaling,
        masses=watched,
        surprisal=layer.surprisal if watched else None,
    )


def close(a: Decoded, b: Decoded) -> None:
    for name, x, y in zip(Decoded._fields, a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def equal(a: Decoded, b: Decoded) -> bool:
    return torch.equal(a.out, b.out) and torch.equal(a.lse, b.lse)


@TWINS
@pytest.mark.parametrize("every", [True, False])
def test_decode_is_softmax_over_the_listed_tokens(twin, every):
    layer = Layer(Shape(B=3, n=7))
    pages, kept, tails = layer.dense if every else layer.some()
    found = decode(twin, layer, (pages, kept, tails), watched=True)
    size = layer.shape.P
    for b in range(3):
        for h in range(layer.shape.H):
            out, weights = attend(layer, b, h, pages, kept)
            torch.testing.assert_close(found.out[b, h].double(), out, rtol=1e-4, atol=1e-5)
            n, share = int(kept[b, h]), weights.mean(0)
            padded = torch.nn.functional.pad(share, (0, n * size - len(share))).view(n, size)
            nats = layer.surprisal[pages[b, h, :n].long()]
            for part, expected in (
                (found.page_mass, padded.sum(1)),
                (found.page_surprisal, (padded * nats).sum(1)),
            ):
                torch.testing.assert_close(part[b, h, :n].double(), expected, rtol=1e-4, atol=1e-6)
                assert not part[b, h, n:].any()


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_compiled_twin_is_the_naive_one(shape):
    layer = Layer(shape, empty_row=shape.B > 2)
    layer.poison()
    for lists in (layer.dense, layer.some()):
        close(decode(native, layer, lists, watched=True), decode(naive, layer, lists, watched=True))


@TWINS
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_what_lies_in_unused_slots_and_unlisted_pages_changes_no_bit(twin, poison):
    clean, dirty = Layer(Shape(B=4, n=6)), Layer(Shape(B=4, n=6))
    dirty.poison(poison)
    a, b = (decode(twin, layer, layer.dense, watched=True) for layer in (clean, dirty))
    assert equal(a, b)
    assert torch.equal(a.page_mass, b.page_mass)
    assert torch.equal(a.page_surprisal, b.page_surprisal)


@TWINS
def test_a_row_without_pages_gives_zeros(twin):
    layer = Layer(Shape(B=2), empty_row=True)
    found = decode(twin, layer, layer.dense, watched=True)
    assert not found.out[1].any()
    assert (found.lse[1] == -math.inf).all()
    assert not found.page_mass[1].any()


@TWINS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_row_touches_no_other(twin, bad):
    clean, spoiled = Layer(Shape()), Layer(Shape())
    spoiled.q[1] = bad
    spoiled.k[:, spoiled.table[1, 0].long()] = bad
    a, b = (decode(twin, layer, layer.dense, watched=True) for layer in (clean, spoiled))
    assert b.out[1].isnan().any()
    for part, other in zip(a, b, strict=True):
        assert torch.equal(part[[0, 2]], other[[0, 2]])


@TWINS
def test_minus_infinity_scores_weigh_nothing(twin):
    layer = Layer(Shape(B=1, n=3, H=1))
    layer.q.abs_()
    layer.k[:, layer.table[0, 0].long()] = -math.inf  # the whole first page, before any other
    found = decode(twin, layer, layer.dense, watched=True)
    assert found.out.isfinite().all()
    assert not found.page_mass[0, 0, 0].any()
    torch.testing.assert_close(found.page_mass.sum(), torch.tensor(1.0))


@TWINS
def test_watching_masses_changes_no_bit(twin):
    layer = Layer(Shape(n=100))
    assert equal(decode(twin, layer, layer.dense), decode(twin, layer, layer.dense, watched=True))


@TWINS
def test_where_pages_lie_changes_no_bit(twin):
    layer = Layer(Shape(B=3, n=100))
    before = decode(twin, layer, layer.dense, watched=True)
    moved = torch.randperm(layer.pool, generator=layer.generator)
    layer.k, layer.v = layer.k[:, moved].contiguous(), layer.v[:, moved].contiguous()
    layer.surprisal = layer.surprisal[moved]
    layer.table = moved.argsort().int()[layer.table.long()]
    after = decode(twin, layer, layer.dense, watched=True)
    assert all(map(torch.equal, before, after))


@needs_compiler
def test_other_rows_and_padding_change_no_bit_of_a_row():
    layer = Layer(Shape(B=4, n=150))
    together = decode(native, layer, layer.dense)
    pages, kept, tails = layer.dense
    for b in range(4):
        n, row = int(kept[b, 0]), slice(b, b + 1)
        alone = native.decode_pages(
            layer.q[row], layer.k, layer.v, pages[row, :, :n], kept[row], tails[row], layer.scaling
        )
        assert torch.equal(alone.out, together.out[row])
        assert torch.equal(alone.lse, together.lse[row])


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    layer = Layer(Shape(B=3, n=200))
    one = decode(native, layer, layer.dense, watched=True)
    try:
        torch.set_num_threads(2)
        two = decode(native, layer, layer.dense, watched=True)
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, one, two))


@TWINS
def test_a_list_per_head_that_names_every_page_is_dense_attention_bit_for_bit(twin):
    layer = Layer(Shape(n=70))
    pages, kept, tails = layer.dense
    own = (pages.contiguous(), kept.contiguous(), tails)
    assert equal(decode(twin, layer, layer.dense), decode(twin, layer, own))


def test_other_number_formats_take_the_naive_twin():
    layer = Layer(Shape())
    layer.q, layer.k, layer.v = (part.bfloat16() for part in (layer.q, layer.k, layer.v))
    found = decode(native, layer, layer.dense)
    assert found.out.dtype == torch.bfloat16
    assert found.lse.dtype == torch.float32
    assert equal(found, decode(naive, layer, layer.dense))


@given(st.integers(0, 2**31 - 1))
def test_dropping_mass_moves_the_output_by_at_most_that_mass_times_the_spread_of_values(seed):
    layer = Layer(Shape(B=1, H=1, n=8), seed)
    pages, kept, _ = layer.some()
    sparse = decode(naive, layer, (pages, kept, layer.tails))
    dense = decode(naive, layer, layer.dense)
    whole, weights = attend(layer, 0, 0, *layer.dense[:2])
    listed = set(pages[0, 0, : int(kept[0, 0])].tolist())
    dropped = torch.zeros(layer.shape.G, dtype=torch.float64)
    for position in range(weights.shape[1]):
        if int(layer.table[0, position // layer.shape.P]) not in listed:
            dropped += weights[:, position]
    length = weights.shape[1]
    values = layer.v[0, layer.table[0, : int(layer.n_pages[0])].long()].flatten(0, 1)[:length]
    moved = (sparse.out - dense.out)[0, 0].double().norm(dim=-1)
    assert whole.shape == dense.out[0, 0].shape
    assert torch.all(moved <= dropped * torch.cdist(values, values).max() * (1 + 1e-4) + 1e-5)


@given(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(0, 20))
def test_a_prompt_chunk_attends_causally_to_all_before_it(seed, n, start):
    generator = torch.Generator().manual_seed(seed)
    heads, group, dim, scale = 2, 3, 8, 8**-0.5
    k, v = (torch.randn(heads, start + n, dim, generator=generator) for _ in range(2))
    q = torch.randn(heads * group, n, dim, generator=generator)
    out = prefill(q, k, v, scale)
    for i in range(n):
        seen = start + i + 1
        weights = (q[:, i].view(heads, group, dim) @ k[:, :seen].mT * scale).softmax(-1)
        alone = (weights @ v[:, :seen]).flatten(0, 1)
        torch.testing.assert_close(out[:, i], alone, rtol=1e-5, atol=1e-5, msg=f"query {i}")
