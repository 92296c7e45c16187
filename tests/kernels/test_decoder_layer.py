"""A decoder layer as one kernel: against its definition, and against its parts, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.decoder_layer import naive
from kernels.decoder_layer.native import MOST_ROWS, Kernel, Layer, available
from kernels.decoder_layer.shapes import Choice, LayerPages, Rows, Shape, Weights
from kernels.gated_silu.native import gated_silu
from kernels.kv_store.native import store
from kernels.native.build import find_compiler
from kernels.page_select.naive import Pins
from kernels.page_select.native import estimate_mass, select_pages
from kernels.page_stats import Bounds, Moments, PageStats
from kernels.paged_decode.native import decode_pages
from kernels.rms_norm.native import rms_norm
from kernels.rotary.native import rotate
from kernels.skinny_linear.naive import pack
from kernels.skinny_linear.native import linear

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
SHAPE = Shape(width=48, inner=80, kv_heads=2, group=2, dim=16)
PAGE, PAGES = 4, 70  # pages of the longest row: two chunks of attention


class Made:
    """Random weights, rows of uneven length and a pool whose unwritten slots are NaN."""

    def __init__(
        self,
        rows: int,
        *,
        biased: bool = False,
        stats: str = "moments",
        chosen: bool = False,
        shape: Shape = SHAPE,
    ) -> None:
        self._random = torch.Generator().manual_seed(rows)
        self.shape = s = shape
        width = s.heads * s.dim
        self.weights = Weights(
            first=self.normal(s.width),
            inputs=pack(self.normal(width, s.width) / 7),
            inputs_bias=self.normal(width) if biased else None,
            output=pack(self.normal(s.width, s.queries * s.dim) / 8),
            output_bias=self.normal(s.width) if biased else None,
            second=self.normal(s.width),
            gate=pack(self.normal(s.inner, s.width) / 7),
            up=pack(self.normal(s.inner, s.width) / 7),
            down=pack(self.normal(s.width, s.inner) / 9),
            first_eps=1e-5,
            second_eps=1e-6,
        )
        self.x = self.normal(rows, s.width)
        n = torch.randint(1, PAGES + 1, (rows,), generator=self._random).int()
        n[0] = PAGES
        tails = torch.randint(1, PAGE + 1, (rows,), generator=self._random).int()
        pool = rows * PAGES
        table = torch.randperm(pool, generator=self._random).view(rows, PAGES).int()
        angles = self.normal(rows, s.dim // 2).repeat(1, 2)
        last = table.gather(1, n[:, None].long() - 1)[:, 0].long()
        self.rows = Rows(
            cos=angles.cos(),
            sin=angles.sin(),
            slots=last * PAGE + tails - 1,
            table=table,
            n_pages=n,
            choice=self.choice(rows) if chosen else None,
            tails=tails,
            scaling=s.dim**-0.5,
        )
        k, v = (self.normal(s.kv_heads, pool, PAGE, s.dim) for _ in range(2))
        for page, tail in zip(last.tolist(), tails.tolist(), strict=True):
            k[:, page, tail - 1 :] = v[:, page, tail - 1 :] = torch.nan
        self.pages = LayerPages(k=k, v=v, stats=_stats(stats, s.kv_heads, pool, s.dim))

    def choice(self, rows: int) -> Choice:
        """Return coverages of which every third is 1."""
        coverage = torch.rand(rows, generator=self._random)
        coverage[2::3] = 1.0
        return Choice(coverage=coverage, pins=Pins())

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._random)

    def fresh_pages(self) -> LayerPages:
        """Return a copy of the pool, for a layer writes it."""
        stats = self.pages.stats
        kept = None if stats is None else type(stats)(*(part.clone() for part in stats))
        return LayerPages(k=self.pages.k.clone(), v=self.pages.v.clone(), stats=kept)


def _stats(kind: str, *shape: int) -> PageStats | None:
    if kind == "none":
        return None
    made = Bounds if kind == "bounds" else Moments
    return made(*(torch.zeros(shape) for _ in range(2)))


def in_one(made: Made, pages: LayerPages, following: Tensor | None = None) -> Tensor:
    kernel = Kernel(made.shape, PAGE)
    return Layer(kernel, made.weights, following)(made.x, kernel.lay(made.rows), pages)


def in_parts(made: Made, pages: LayerPages) -> Tensor:
    """Compute the layer with the compiled kernels of its parts."""
    s, w, rows = made.shape, made.weights, made.rows
    normed = rms_norm(made.x, w.first, w.first_eps)
    heads = linear(normed, w.inputs, s.heads * s.dim, w.inputs_bias).view(-1, s.heads, s.dim)
    rotate(heads, rows.cos, rows.sin, s.queries + s.kv_heads)
    q, k, v = heads.split([s.queries, s.kv_heads, s.kv_heads], dim=1)
    store(k.transpose(0, 1), v.transpose(0, 1), rows.slots, pages.k, pages.v, pages.stats)
    grouped = q.unflatten(1, (s.kv_heads, s.group))
    listed, kept = in_parts_listed(made, grouped, pages)
    out = decode_pages(grouped, pages.k, pages.v, listed, kept, rows.tails, rows.scaling).out
    h = made.x + linear(out.reshape(len(made.x), -1), w.output, s.width, w.output_bias)
    normed = rms_norm(h, w.second, w.second_eps)
    gate, up = (linear(normed, packed, s.inner, None) for packed in (w.gate, w.up))
    return h + linear(gated_silu(gate, up), w.down, s.width, None)


def in_parts_listed(made: Made, q: Tensor, pages: LayerPages) -> tuple[Tensor, Tensor]:
    """Return the pages read and how many; where there is a choice the compiled kernels make it."""
    rows, heads = made.rows, made.shape.kv_heads
    if rows.choice is None:
        every = rows.table[:, None].expand(-1, heads, -1)
        return every, rows.n_pages[:, None].expand(-1, heads)
    assert pages.stats is not None
    mass = estimate_mass(
        q, pages.stats, rows.table, rows.n_pages, rows.tails, rows.scaling, page_tokens=PAGE
    )
    return select_pages(mass, rows.table, rows.n_pages, rows.choice.coverage, rows.choice.pins)


def assert_same_bits(found: LayerPages, expected: LayerPages) -> None:
    pairs = zip(_tensors(found), _tensors(expected), strict=True)
    assert all(torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in pairs)


def _tensors(pages: LayerPages) -> list[Tensor]:
    return [pages.k, pages.v, *(pages.stats or ())]


@pytest.mark.parametrize(
    ("rows", "biased", "stats"),
    [
        (1, False, "moments"),
        (3, True, "bounds"),
        (8, False, "none"),
        (9, True, "moments"),
        (16, False, "moments"),
        (MOST_ROWS, False, "bounds"),
    ],
)
def test_a_layer_has_the_bits_of_its_parts_and_is_what_is_defined(rows, biased, stats):
    made = Made(rows, biased=biased, stats=stats)
    one, parts, defined = (made.fresh_pages() for _ in range(3))
    found = in_one(made, one)
    assert torch.equal(found, in_parts(made, parts))
    assert_same_bits(one, parts)
    expected = naive.layer(made.x, made.rows, SHAPE, made.weights, defined)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(one.k, defined.k, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_heads_wider_than_a_vector_choose_the_pages_of_the_parts():
    shape = replace(SHAPE, dim=24, group=3)
    made = Made(6, chosen=True, shape=shape)
    one, parts = made.fresh_pages(), made.fresh_pages()
    kernel = Kernel(shape, PAGE)
    laid = kernel.lay(made.rows)
    found = Layer(kernel, made.weights)(made.x, laid, one)
    assert torch.equal(found, in_parts(made, parts))
    q = laid.space.heads[:, : shape.queries].unflatten(1, (shape.kv_heads, shape.group))
    pages, kept = in_parts_listed(made, q, parts)
    assert torch.equal(laid.lists.pages, pages)
    assert torch.equal(laid.lists.kept, kept)


@pytest.mark.parametrize(
    ("rows", "stats"), [(1, "moments"), (5, "bounds"), (16, "moments"), (MOST_ROWS, "bounds")]
)
def test_a_layer_that_chooses_pages_has_the_bits_of_its_parts_and_reads_what_they_choose(
    rows, stats
):
    made = Made(rows, stats=stats, chosen=True)
    one, parts, defined = (made.fresh_pages() for _ in range(3))
    kernel = Kernel(SHAPE, PAGE)
    laid = kernel.lay(made.rows)
    found = Layer(kernel, made.weights)(made.x, laid, one)
    assert torch.equal(found, in_parts(made, parts))
    assert_same_bits(one, parts)
    s = SHAPE
    q = laid.space.heads[:, : s.queries].unflatten(1, (s.kv_heads, s.group))
    pages, kept = in_parts_listed(made, q, parts)
    assert torch.equal(laid.lists.kept, kept)
    assert torch.equal(laid.lists.pages, pages)
    assert rows == 1 or int(kept.sum()) < int(made.rows.n_pages.sum()) * s.kv_heads
    expected = naive.layer(made.x, made.rows, s, made.weights, defined)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_rows_at_coverage_1_have_the_bits_they_have_where_nobody_chooses():
    made, plain = Made(16, chosen=True), Made(16)
    found, dense = in_one(made, made.fresh_pages()), in_one(plain, made.fresh_pages())
    assert torch.equal(found[2::3], dense[2::3])
    assert not torch.equal(found[0::3], dense[0::3])


def test_a_layer_in_two_calls_around_attention_has_the_same_bits():
    made, (one, two) = Made(5), (Made(5).fresh_pages() for _ in range(2))
    whole = in_one(made, one)
    s, rows, layer = SHAPE, made.rows, Layer(Kernel(SHAPE, PAGE), made.weights)
    heads = layer.before(made.x, rows.cos, rows.sin)
    q, k, v = heads.split([s.queries, s.kv_heads, s.kv_heads], dim=1)
    store(k.transpose(0, 1), v.transpose(0, 1), rows.slots, two.k, two.v, two.stats)
    grouped = q.unflatten(1, (s.kv_heads, s.group))
    listed, kept = in_parts_listed(made, grouped, two)
    out = decode_pages(grouped, two.k, two.v, listed, kept, rows.tails, rows.scaling).out
    assert torch.equal(layer.after(made.x, out.reshape(5, -1)), whole)
    assert_same_bits(one, two)


@pytest.mark.parametrize(("rows", "threads"), [(16, 2), (16, 3), (1, 5)])
@pytest.mark.parametrize("chosen", [False, True])
def test_threads_and_what_is_read_ahead_change_no_bit(rows, threads, chosen):
    made, before = Made(rows, chosen=chosen), torch.get_num_threads()
    expected = in_one(made, made.fresh_pages())
    torch.set_num_threads(threads)
    try:
        found = in_one(made, made.fresh_pages(), made.weights.inputs)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("alone", [[0], [3, 11]])
@pytest.mark.parametrize("chosen", [False, True])
def test_a_row_has_the_same_bits_whoever_is_beside_it(alone, chosen):
    made = Made(16, chosen=chosen)
    expected = in_one(made, made.fresh_pages())[alone]
    few = {name: getattr(made.rows, name)[alone] for name in ("cos", "sin", "slots")}
    few |= {name: getattr(made.rows, name)[alone] for name in ("table", "n_pages", "tails")}
    if made.rows.choice is not None:
        few["choice"] = replace(made.rows.choice, coverage=made.rows.choice.coverage[alone])
    made.x, made.rows = made.x[alone], replace(made.rows, **few)
    assert torch.equal(in_one(made, made.fresh_pages()), expected)


@pytest.mark.parametrize("uneven", [{"width": 40}, {"inner": 72}, {"dim": 15}])
def test_sizes_that_do_not_fill_vectors_are_refused(uneven):
    assert not available(replace(SHAPE, **uneven), PAGE)
