"""Packed linear layers compute what plain ones do, and survive what is done to models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from backend.cache import PagedCache
from backend.linear import PackedLinear, prepare_for_cpu
from backend.sparse import SparseAttention
from backend.steps import forward, prepare
from controllers.selection import Pins
from controllers.serving.messages import Row
from kernels.native.build import find_compiler
from tests.backend.tiny import tiny_model


class Tied(nn.Module):
    """An embedding whose weight is also the head, a layer with a bias, and a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 256)
        self.middle = nn.Linear(256, 256)
        self.small = nn.Linear(256, 2)
        self.head = nn.Linear(256, 300, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.middle(self.embedding(ids)).tanh()
        return self.head(hidden) + self.small(hidden).sum()


@pytest.fixture
def pair() -> tuple[Tied, Tied]:
    torch.manual_seed(0)
    plain = Tied().eval()
    packed = copy.deepcopy(plain)
    assert prepare_for_cpu(packed) == 2
    assert isinstance(packed.head, PackedLinear)
    assert type(packed.small) is nn.Linear
    return plain, packed


@pytest.mark.parametrize("shape", [(1, 1), (1, 16), (3, 5), (1, 600)])
@torch.no_grad()
def test_a_packed_model_gives_the_same_numbers(pair, shape):
    ids = torch.randint(0, 300, shape)
    plain, packed = (model(ids) for model in pair)
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_packed_model_can_be_copied_and_moved_to_another_format(pair):
    ids = torch.arange(20)[None]
    exact = copy.deepcopy(pair[0]).double()(ids)
    twin = copy.deepcopy(pair[1])
    assert torch.equal(twin(ids), pair[1](ids))
    torch.testing.assert_close(twin.double()(ids), exact)
    assert twin.middle.weight.dtype == torch.float64
    assert pair[1].middle.weight.dtype == torch.float32
    assert torch.equal(twin.float()(ids), pair[1](ids))


def test_the_weights_of_a_packed_model_are_still_there(pair):
    plain, packed = (model.state_dict() for model in pair)
    assert set(plain) == set(packed)
    assert all(torch.equal(plain[name], packed[name]) for name in plain)
    assert torch.equal(pair[1].embedding.weight, pair[1].head.weight)


def test_other_number_formats_are_left_alone():
    model = Tied().bfloat16()
    assert prepare_for_cpu(model) == 0
    assert type(model.middle) is nn.Linear


@torch.no_grad()
@pytest.mark.parametrize("has_one_dnn", [True, False])
def test_without_a_compiler_the_numbers_are_the_same(pair, monkeypatch, has_one_dnn):
    monkeypatch.setattr("backend.linear.native.available", lambda _: False)
    if not has_one_dnn:
        monkeypatch.setattr("backend.linear._has_one_dnn", lambda: False)
    plain, ids = copy.deepcopy(pair[0]), torch.arange(20)[None]
    other = copy.deepcopy(plain)
    assert prepare_for_cpu(other) == 2
    torch.testing.assert_close(other(ids), plain(ids), rtol=1e-5, atol=1e-5)
    assert torch.equal(other.middle.weight, plain.middle.weight)


@torch.no_grad()
@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("coverage", [1.0, 0.8])
def test_a_decode_rows_logits_do_not_depend_on_the_batch_bit_for_bit(monkeypatch, coverage):
    monkeypatch.setattr("backend.linear.SMALLEST", 1)
    tiny = tiny_model()
    assert prepare_for_cpu(tiny.model) > 0
    cache = PagedCache(layers=2, kv_heads=2, head_dim=16, n_pages=64, page_tokens=16)
    for store in (cache.k, cache.v):
        store.copy_(torch.randn(store.shape, generator=torch.Generator().manual_seed(1)))
    tables = {lane: list(range(12 * lane, 12 * lane + 12)) for lane in range(5)}
    rows = [Row(lane, 150 + 7 * lane, 1, True, coverage, False) for lane in range(5)]

    def logits(chosen: list[Row]) -> torch.Tensor:
        step = prepare(chosen, tables, cache, Pins(), sparse=SparseAttention(min_pages=1))
        return forward(tiny.model, [row.request_id + 60 for row in chosen], chosen, step)

    whole = logits(rows)
    for lane, row in enumerate(rows):
        assert torch.equal(logits([row])[0], whole[lane])
    assert torch.equal(logits(rows[1:4]), whole[1:4])
