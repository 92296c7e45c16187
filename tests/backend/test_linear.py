"""Packed linear layers compute what plain ones do, and survive what is done to models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from backend.linear import PackedLinear, prepare_for_cpu

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here"
)


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
