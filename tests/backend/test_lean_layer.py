"""Twins of decoder layers: one call for one-token rows, the modules for all else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import backend.layer
import backend.linear
from backend.engine import Engine
from backend.layer import LeanLayer, lean_layers
from backend.lean import lean
from backend.lean_attention import lean_attention
from backend.linear import prepare_for_cpu
from backend.models import LoadedModel
from backend.sparse import SparseAttention
from backend.steps import forward, prepare
from controllers.presets import get_preset
from controllers.selection import Pins
from controllers.serving.messages import Row
from kernels.decoder_layer.native import Layer
from kernels.native.build import find_compiler
from tests.backend.tiny import (
    ROOMY,
    STEP_LAW,
    engine,
    sparse,
    submission,
    tiny_model,
    tokens_of,
)

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _pack_small_layers(monkeypatch):
    monkeypatch.setattr(backend.linear, "SMALLEST", 1)


@pytest.fixture
def fresh() -> LoadedModel:
    return tiny_model()


def packed(loaded: LoadedModel, *, layers: bool) -> LoadedModel:
    """Return a copy with twins of modules, and of layers if asked."""
    model: Any = copy.deepcopy(loaded.model)
    prepare_for_cpu(model)
    assert lean(model) + lean_attention(model) == 2 * 4 + 1
    if layers:
        assert lean_layers(model) == 2
    return replace(loaded, model=model)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The ways in which layers were computed by the kernel."""
    seen: list[str] = []
    for name in ("__call__", "before"):
        own = getattr(Layer, name)

        def noted(self: Layer, *args: Any, own: Any = own, name: str = name) -> Tensor:
            seen.append(name)
            return own(self, *args)

        monkeypatch.setattr(Layer, name, noted)
    return seen


@pytest.mark.parametrize("preset", ["baseline", "full", sparse(0.8)], ids=["dense", "full", "0.8"])
@pytest.mark.parametrize(
    "options", [{}, {"scorer": "quest"}, {"dense_layers": 1}, {"min_pages": 5}], ids=str
)
def test_tokens_and_pages_read_are_those_of_the_modules(fresh, preset, options, calls):
    modules, layers = (
        Engine(
            packed(fresh, layers=swapped),
            get_preset(preset) if isinstance(preset, str) else preset,
            ROOMY,
            STEP_LAW,
            sparse=SparseAttention(**{"min_pages": 1, **options}),
        )
        for swapped in (False, True)
    )
    calls.clear()  # of the trials before the swap
    wanted = [submission(0), submission(1, 40), submission(2, 70), submission(3, 200)]
    expected = tokens_of(modules, wanted)
    assert not calls
    assert tokens_of(layers, wanted) == expected
    assert set(calls) == {"__call__"}
    for name in ("page_units_read", "page_units_dense", "pages_scored"):
        found, counted = (made.ledger.steps[name] for made in (layers, modules))
        assert found.tolist() == counted.tolist()
    steps = layers.ledger.steps
    prunes = preset == sparse(0.8)
    assert (steps["pages_scored"].sum() > 0) == prunes
    assert (steps["page_units_read"].sum() < steps["page_units_dense"].sum()) == prunes


@pytest.mark.parametrize("options", [{}, {"dense_layers": 1}], ids=str)
def test_one_step_may_hold_dense_rows_pruned_ones_and_ends_of_prompts(fresh, options, calls):
    length, tables = 161, [list(range(lane * 11, lane * 11 + 11)) for lane in range(3)]
    rows = [
        Row(0, length - 1, 1, True, 1.0, False),
        Row(1, length - 1, 1, True, 0.5, False),
        Row(2, length - 1, 1, False, 0.5, False),  # part of a prompt, in no count
    ]
    found = []
    for swapped in (False, True):
        made = engine(packed(fresh, layers=swapped))
        generator = torch.Generator().manual_seed(0)
        cache = made.executor.cache
        for store in (cache.k, cache.v, *(part for pair in cache.stats for part in pair)):
            store.copy_(torch.rand(store.shape, generator=generator))
        step = prepare(
            rows,
            dict(enumerate(tables)),
            cache,
            Pins(),
            sparse=SparseAttention(min_pages=1, **options),
        )
        calls.clear()
        with torch.no_grad():
            logits = forward(made.executor.loaded.model, [65, 66, 67], rows, step)
        assert set(calls) == ({"__call__"} if swapped else set())
        found.append((logits, step.page_units_read, step.page_units_dense, step.pages_scored))
    (expected, *counts), (logits, *counted) = found
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert counted == counts
    read, dense, scored = counted
    pruned_layers = 2 - options.get("dense_layers", 0)
    assert dense == 2 * 11 * 2 * 2  # rows, pages, layers, heads
    assert scored == 11 * pruned_layers * 2
    assert dense - scored < read < dense


@pytest.mark.parametrize("scorer", ["lagged", "oracle", "low_bit"])
def test_scorers_the_kernel_does_not_know_are_called_between_its_two_halves(fresh, scorer, calls):
    swapped = packed(fresh, layers=True)
    made = Engine(
        swapped, sparse(0.8), ROOMY, STEP_LAW, sparse=SparseAttention(min_pages=1, scorer=scorer)
    )
    calls.clear()
    tokens_of(made, [submission(0)])
    assert set(calls) == {"before"}


def test_a_copy_works_and_one_in_another_format_goes_back_to_its_modules(fresh, calls):
    swapped, wanted = packed(fresh, layers=True), [submission(0)]
    expected = tokens_of(engine(swapped), wanted)
    assert list(swapped.model.state_dict()) == list(fresh.model.state_dict())
    assert tokens_of(engine(replace(swapped, model=copy.deepcopy(swapped.model))), wanted) == (
        expected
    )
    calls.clear()
    layer: Any = copy.deepcopy(swapped.model).double().model.layers[0]
    assert layer.bound(16, torch.zeros(1, 1, 64)) is None


def test_a_layer_that_computes_something_else_is_left_alone(fresh, monkeypatch):
    plain = packed(fresh, layers=False).model

    def scaled(self: LlamaDecoderLayer, x: Tensor, **kwargs: Any) -> Tensor:
        return own(self, x, **kwargs) * 1.0001

    own = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "forward", scaled)
    assert lean_layers(plain) == 0


def test_a_layer_somebody_listens_to_is_left_alone(fresh):
    plain = packed(fresh, layers=False).model
    plain.model.layers[0].register_forward_hook(lambda *_: None)
    assert lean_layers(plain) == 1
    assert isinstance(plain.model.layers[1], LeanLayer)


def test_without_a_compiler_nothing_is_swapped(fresh, monkeypatch):
    monkeypatch.setattr(backend.layer, "available", lambda *_: False)
    assert lean_layers(packed(fresh, layers=False).model) == 0
