"""Triton paged decode against its definition, over a table of shapes, in poisoned pools."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.paged_decode import fused, naive
from kernels.paged_decode.naive import Decoded
from tests.kernels.guards import Guarded, device

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAN = math.nan
EXACT = {FP32: 2e-6, FP16: 1e-3, BF16: 1e-2}  # of the output; the type's own rounding
TENSOR_CORE = 2e-3  # of sums on a GPU, where 16-bit operands are multiplied as tf32


@dataclass
class Case:
    """Random rows over a pool in which everything that must not be read is NaN."""

    rows: int
    heads: int
    group: int
    dim: int
    page_tokens: int
    width: int  # pages listed by the first row; others list fewer, the last none
    dtype: torch.dtype = FP32
    seed: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        pool, kinds = self.rows * self.width + 2, (self.heads, self.page_tokens, self.dim)
        self.kept = torch.randint(
            1, self.width + 1, (self.rows, self.heads), generator=generator
        ).int()
        self.kept[0, 0] = self.width
        if self.rows > 1:
            self.kept[-1] = 0
        self.tails = torch.randint(1, self.page_tokens + 1, (self.rows,), generator=generator).int()
        places = torch.randperm(pool, generator=generator).int()
        places = places[: self.rows * self.width].view(self.rows, 1, self.width)
        self.pages = places.repeat(1, self.heads, 1)
        self.q = torch.randn(self.rows, self.heads, self.group, self.dim, generator=generator).to(
            self.dtype
        )
        heads, size, dim = kinds
        self.k, self.v = (
            torch.randn(heads, pool, size, dim, generator=generator).to(self.dtype)
            for _ in range(2)
        )
        self.nats = torch.rand(pool, size, generator=generator) * 5
        self.nats[places[0, 0, 0], 0] = NAN  # token 0 of a sequence has no surprisal
        self._poison()

    def _poison(self) -> None:
        """Fill with NaN what no head of any row may read, and the padding of lists with junk."""
        seen = torch.zeros(self.heads, *self.nats.shape, dtype=torch.bool)
        for row in range(self.rows):
            for head in range(self.heads):
                count = int(self.kept[row, head])
                if count:
                    listed = self.pages[row, head, :count].long()
                    seen[head, listed[:-1]] = True
                    seen[head, listed[-1], : int(self.tails[row])] = True
                self.pages[row, head, count:] = 2**31 - 1
        self.k[~seen] = NAN
        self.v[~seen] = NAN
        self.nats[~seen.any(0)] = NAN

    def args(self, place: torch.device | str = "cpu") -> list[Tensor | float]:
        tensors = (self.q, self.k, self.v, self.pages, self.kept, self.tails)
        return [*(tensor.to(place) for tensor in tensors), self.dim**-0.5]

    def expected(self) -> Decoded:
        return naive.decode_pages(*self.args(), surprisal=self.nats, masses=True)

    def decoded(self, *, watched: bool = True, programs: int | None = None) -> Decoded:
        guarded, place = Guarded(), device()
        nats = self.nats.to(place) if watched else None
        got = fused.decode_pages(
            *self.args(place),
            surprisal=nats,
            masses=watched,
            programs=programs,
            workspace=guarded,
        )
        guarded.check()
        return Decoded(*(None if part is None else part.cpu() for part in got))


def same_bits(a: Decoded, b: Decoded) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)


SHAPES = [
    # rows, heads, group, head size, page, listed pages, type
    (1, 1, 1, 16, 16, 1, FP32),
    (1, 1, 1, 64, 16, 40, FP32),
    (3, 2, 3, 64, 16, 9, FP32),
    (2, 1, 4, 80, 16, 33, FP32),
    (2, 2, 8, 20, 16, 17, FP32),
    (2, 1, 17, 24, 4, 70, FP32),
    (1, 2, 3, 33, 1, 300, FP32),
    (2, 1, 2, 16, 12, 40, FP32),  # a page size that is no power of two
    (1, 1, 4, 64, 128, 5, FP32),
    (2, 2, 3, 64, 16, 20, FP16),
    (2, 2, 4, 128, 16, 20, BF16),
    (1, 1, 8, 48, 32, 30, BF16),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_sums_are_those_of_the_definition(shape):
    case = Case(*shape)
    got, want = case.decoded(), case.expected()
    sums = 2e-6 if case.dtype == FP32 or device().type == "cpu" else TENSOR_CORE
    out = max(sums, EXACT[case.dtype])
    torch.testing.assert_close(got.out.float(), want.out.float(), rtol=out, atol=out)
    for mine, theirs in zip(got[1:], want[1:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=sums, atol=sums)


def test_a_peak_in_the_last_of_many_chunks_outweighs_the_first():
    case = Case(1, 1, 2, 16, 128, 36)  # 18 chunks: more than the merge reads at once
    case.k[:, case.pages[0, 0, -1]] *= 4.0
    got, want = case.decoded(), case.expected()
    assert 0.1 < float(want.page_mass[0, 0, -1]) < 0.99
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("shape", [(3, 2, 3, 64, 16, 9, FP32), (1, 1, 8, 20, 4, 70, FP16)], ids=str)
def test_neither_programs_nor_watching_nor_company_change_a_bit(shape):
    case = Case(*shape)
    whole = case.decoded()
    assert same_bits(case.decoded(programs=1), whole)
    blind = case.decoded(programs=2, watched=False)
    assert torch.equal(blind.out, whole.out)
    assert torch.equal(blind.lse, whole.lse)
    first = Case(*shape)
    for name in ("q", "pages", "kept", "tails"):
        setattr(first, name, getattr(first, name)[:1])
    assert torch.equal(first.decoded().out, whole.out[:1])


def test_a_longer_list_beside_a_row_changes_none_of_its_bits():
    case = Case(2, 2, 3, 16, 16, 20)
    before = case.decoded()
    padding = torch.full((2, 2, 500), 2**31 - 1, dtype=torch.int32)
    case.pages = torch.cat([case.pages, padding], dim=-1)
    after = case.decoded()
    assert torch.equal(after.out, before.out)
    assert torch.equal(after.lse, before.lse)
    assert torch.equal(after.page_mass[..., :20], before.page_mass)
    assert not after.page_mass[..., 20:].any()


def test_masses_sum_to_one_and_a_row_without_pages_attends_to_nothing():
    case = Case(3, 2, 3, 16, 16, 20)
    got = case.decoded()
    torch.testing.assert_close(got.page_mass[:2].sum(-1), torch.ones(2, 2))
    assert not got.out[2].any()
    assert not got.page_mass[2].any()
    assert not got.page_surprisal[2].any()
    assert (got.lse[2] == -math.inf).all()


def test_where_pages_lie_changes_no_bit():
    case = Case(2, 2, 3, 24, 16, 20)
    before = case.decoded()
    moved = torch.randperm(case.k.shape[1], generator=torch.Generator().manual_seed(9))
    place = moved.argsort()  # page p now lies at place[p]
    case.k, case.v, case.nats = case.k[:, moved], case.v[:, moved], case.nats[moved]
    known = case.pages < len(place)
    case.pages = torch.where(known, place[case.pages.clamp_max(len(place) - 1)].int(), case.pages)
    assert same_bits(case.decoded(), before)


def test_one_list_expanded_over_heads_is_dense_attention():
    case = Case(1, 2, 3, 64, 16, 20)
    case.kept[:] = 20
    case.k, case.v, case.nats = (t.nan_to_num(0.5) for t in (case.k, case.v, case.nats))
    row = torch.arange(20, dtype=torch.int32)
    case.pages = row.expand(1, 2, 20)
    assert case.pages.stride(1) == 0
    expanded = case.decoded()
    case.pages = row.repeat(1, 2, 1)
    assert same_bits(case.decoded(), expanded)
    length = 19 * 16 + int(case.tails[0])
    k, v = (pool.flatten(1, 2)[None, :, :length].double() for pool in (case.k, case.v))
    weights = (case.q.double() @ k.transpose(2, 3) * 64**-0.5).softmax(-1)
    torch.testing.assert_close(expanded.out, (weights @ v).float(), rtol=2e-6, atol=2e-6)


def test_a_nan_query_reaches_its_own_head_alone():
    case = Case(3, 2, 3, 16, 16, 20)
    clean = case.decoded()
    case.q[0, 1, 2, 5] = NAN
    got = case.decoded()
    assert got.out[0, 1, 2].isnan().all()
    got.out[0, 1, 2] = clean.out[0, 1, 2]
    assert torch.equal(got.out, clean.out)


def test_offsets_past_32_bits_are_right():
    size, dim, far = 16, 64, 2**31 // (16 * 64) + 7  # pages: 4 GiB of float16, never touched
    place = device()
    try:
        pool = torch.empty(1, far + 1, size, dim, dtype=FP16, device=place)
    except RuntimeError as error:
        pytest.skip(f"no room for a pool past 32-bit offsets: {error}")
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(1, 2, size, dim, generator=generator).to(FP16)
    pool[:, [5, far]] = small.to(place)
    q = torch.randn(1, 1, 2, dim, generator=generator).to(FP16)
    kept, tails = torch.tensor([[2]], dtype=torch.int32), torch.tensor([9], dtype=torch.int32)
    near, remote = (torch.tensor([[listed]], dtype=torch.int32) for listed in ([0, 1], [5, far]))
    want = naive.decode_pages(q, small, small, near, kept, tails, 0.125)
    args = (q.to(place), pool, pool, remote.to(place), kept.to(place), tails.to(place), 0.125)
    got = fused.decode_pages(*args, workspace=Guarded())
    torch.testing.assert_close(got.out.cpu(), want.out, rtol=2e-3, atol=2e-3)


def test_what_the_kernels_cannot_read_is_refused():
    case = Case(1, 1, 1, 128, 128, 2)
    with pytest.raises(ValueError, match=r"page_tokens: .* got 128 tokens of 128 x 4 bytes"):
        case.decoded()
    case = Case(1, 1, 1, 16, 16, 2)
    case.k = case.k.double()
    with pytest.raises(ValueError, match=r"k_pages: must be float16, bfloat16 or float32"):
        case.decoded()
