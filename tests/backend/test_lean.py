"""Twins of norms and gated MLPs: swapped where they compute the same, and nowhere else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from backend.lean import LeanMLP, LeanNorm, lean
from backend.linear import prepare_for_cpu
from kernels.native.build import find_compiler
from tests.backend.tiny import engine, submission, tokens_of

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
DIM = 64


class GatedRMSNorm(LlamaRMSNorm):
    """A norm that may be given a second tensor."""

    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        out = super().forward(hidden_states)
        return out if gate is None else out * gate


class CentredRMSNorm(LlamaRMSNorm):
    """A norm that takes the mean away first."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


def holder(module: nn.Module) -> nn.Sequential:
    """Put a module with random weights where it can be swapped."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return nn.Sequential(module).eval()


def mlp(activation: str = "silu") -> LlamaMLP:
    return LlamaMLP(LlamaConfig(hidden_size=DIM, intermediate_size=80, hidden_act=activation))


@torch.no_grad()
@pytest.mark.parametrize(
    ("module", "twin"),
    [
        (LlamaRMSNorm(DIM, eps=1e-5), LeanNorm),
        (nn.RMSNorm(DIM, eps=1e-6), LeanNorm),
        (mlp(), LeanMLP),
    ],
)
def test_what_computes_the_same_is_swapped(module, twin):
    model = holder(module)
    plain = copy.deepcopy(model)
    assert lean(model) == 1
    assert type(model[0]) is twin
    assert not model[0].training
    x = torch.randn(2, 5, DIM)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-4)
    assert lean(model) == 0  # a twin is no candidate


@torch.no_grad()
@pytest.mark.parametrize(
    "module",
    [
        Gemma2RMSNorm(DIM),  # multiplies by 1 + weight
        nn.LayerNorm(DIM),
        GatedRMSNorm(DIM),
        CentredRMSNorm(DIM),
        mlp("gelu"),
        mlp("relu"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_computes_something_else_is_left_alone(module):
    model = holder(module)
    x = torch.randn(2, 5, DIM)
    before = model(x)
    assert lean(model) == 0
    assert model[0] is module
    assert torch.equal(model(x), before)


def test_an_epsilon_that_is_not_the_modules_own_is_noticed():
    class Misleading(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            scale = torch.rsqrt(hidden_states.square().mean(-1, keepdim=True) + 1e-6)
            return self.weight * hidden_states * scale

    Misleading.__name__ = "MisleadingRMSNorm"
    assert lean(holder(Misleading(DIM, eps=1e-5))) == 0


@pytest.mark.parametrize("change", ["hook", "training", "format"])
def test_modules_with_hooks_in_training_or_of_another_format_are_left_alone(change):
    model = holder(LlamaRMSNorm(DIM))
    if change == "hook":
        model[0].register_forward_hook(lambda *_: None)
    elif change == "training":
        model.train()
    else:
        model.bfloat16()
    assert lean(model) == 0


@torch.no_grad()
def test_a_swapped_model_keeps_its_weights_and_can_be_copied_and_moved(tiny):
    plain: Any = copy.deepcopy(tiny.model)
    model: Any = copy.deepcopy(plain)
    assert lean(model) == 2 * 3 + 1  # per layer two norms and an MLP, and the last norm
    theirs, ours = plain.state_dict(), model.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in model.named_parameters()]
    twin = copy.deepcopy(model)
    assert type(twin.model.norm) is LeanNorm
    assert twin.model.norm.weight is not model.model.norm.weight
    x = torch.randn(4, 64)
    torch.testing.assert_close(twin.double().model.norm(x.double()).float(), model.model.norm(x))


def test_greedy_tokens_are_unchanged(tiny):
    model = copy.deepcopy(tiny.model)
    assert prepare_for_cpu(model) + lean(model) > 0
    swapped, wanted = replace(tiny, model=model), [submission(0), submission(1, 40)]
    assert tokens_of(engine(swapped, "full"), wanted) == tokens_of(engine(tiny, "full"), wanted)


def test_the_default_model_is_swapped_at_load(smollm2):
    kinds = [type(module) for module in smollm2.model.modules()]
    assert kinds.count(LeanNorm) == 2 * smollm2.layers + 1
    assert kinds.count(LeanMLP) == smollm2.layers


def test_without_a_compiler_nothing_is_swapped(monkeypatch):
    monkeypatch.setattr("backend.lean.norm_kernel.available", lambda: False)
    monkeypatch.setattr("backend.lean.gate_kernel.available", lambda: False)
    assert lean(holder(LlamaRMSNorm(DIM))) + lean(holder(mlp())) == 0
