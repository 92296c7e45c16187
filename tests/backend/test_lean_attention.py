"""Twins of attention modules: swapped where they ask attention the same, and nowhere else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

import backend.linear
from backend.lean_attention import LeanAttention, lean_attention
from backend.linear import prepare_for_cpu
from backend.models import LoadedModel
from kernels.native.build import find_compiler
from tests.backend.tiny import engine, submission, tiny_model, tokens_of

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "attn_implementation": "eager",
}


@pytest.fixture(autouse=True)
def _pack_small_layers(monkeypatch):
    monkeypatch.setattr(backend.linear, "SMALLEST", 1)


@pytest.fixture
def fresh() -> LoadedModel:
    """A model of our own: looking at attention weights leaves hooks, which a twin must respect."""
    return tiny_model()


def packed(module: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    holder = nn.Sequential(module).eval()
    prepare_for_cpu(holder)
    return holder


class Crosswise(LlamaAttention):
    """Attention whose keys are not rotated as its queries are."""

    def forward(self, hidden_states: Any, position_embeddings: Any = None, **kwargs: Any) -> Any:
        cos, sin = position_embeddings
        return super().forward(hidden_states, position_embeddings=(cos, -sin), **kwargs)


@pytest.mark.parametrize(
    ("module", "swapped"),
    [
        (LlamaAttention(LlamaConfig(**SHAPE), 0), 1),
        (LlamaAttention(LlamaConfig(**SHAPE, attention_bias=True), 0), 1),
        (Qwen2Attention(Qwen2Config(**SHAPE), 0), 1),  # bias on inputs alone
        (Qwen3Attention(Qwen3Config(**SHAPE), 0), 0),  # norms on heads
        (Crosswise(LlamaConfig(**SHAPE), 0), 0),
    ],
    ids=["llama", "llama-bias", "qwen2", "qwen3", "crosswise"],
)
def test_only_what_asks_attention_the_same_is_swapped(module, swapped):
    holder = packed(module)
    assert lean_attention(holder) == swapped
    assert isinstance(holder[0], LeanAttention) == bool(swapped)
    assert holder[0].config._attn_implementation == "eager"


def test_layers_that_are_not_packed_are_left_alone():
    holder = nn.Sequential(LlamaAttention(LlamaConfig(**SHAPE), 0)).eval()
    assert lean_attention(holder) == 0


@torch.no_grad()
def test_weights_keep_their_names_and_a_copy_in_another_format_still_works(fresh):
    plain: Any = copy.deepcopy(fresh.model)
    model: Any = copy.deepcopy(fresh.model)
    prepare_for_cpu(model)
    assert lean_attention(model) == 2
    theirs, ours = plain.state_dict(), model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    layer = model.model.layers[0].self_attn
    assert layer.inputs.holds
    assert not copy.deepcopy(model).double().model.layers[0].self_attn.inputs.holds


@pytest.mark.parametrize("preset", ["baseline", "full"])
def test_greedy_tokens_are_unchanged(fresh, preset):
    model = copy.deepcopy(fresh.model)
    prepare_for_cpu(model)
    assert lean_attention(model) == 2
    swapped, wanted = replace(fresh, model=model), [submission(0), submission(1, 40)]
    assert tokens_of(engine(swapped, preset), wanted) == tokens_of(engine(fresh, preset), wanted)


def test_the_default_model_is_swapped_at_load(smollm2):
    kinds = [type(module) for module in smollm2.model.modules()]
    assert kinds.count(LeanAttention) == smollm2.layers
