"""What is compiled, and when: all of it before the first step, and nothing for another page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import backend.linear
from backend.layer import lean_layers
from backend.lean import lean
from backend.lean_attention import lean_attention
from backend.linear import prepare_for_cpu
from backend.models import LoadedModel
from kernels.native import library
from kernels.native.build import find_compiler
from tests.backend.tiny import ROOMY, engine, sparse, submission, tiny_model, tokens_of

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
PAGE = 5  # tokens; not the page that models are loaded for


@pytest.fixture
def compiled(monkeypatch) -> list[tuple[str, int | str | None]]:
    """Kernels asked of the compiler, with the page size each is made for; none is known yet."""
    library.library.cache_clear()
    asked: list[tuple[str, int | str | None]] = []
    own = library.compile

    def noted(source: Path, defines: Mapping[str, int | str], cache: Path):
        asked.append((source.parent.name, defines.get("P")))
        return own(source, defines, cache)

    monkeypatch.setattr(library, "compile", noted)
    return asked


@pytest.fixture
def swapped(monkeypatch, compiled) -> LoadedModel:
    monkeypatch.setattr(backend.linear, "SMALLEST", 1)
    loaded = tiny_model()
    for prepare in (prepare_for_cpu, lean, lean_attention, lean_layers):
        assert prepare(loaded.model) > 0
    compiled.clear()
    return loaded


def test_every_kernel_of_a_step_is_compiled_when_the_engine_is_made(swapped, compiled):
    made = engine(swapped, sparse(0.8), replace(ROOMY, page_tokens=PAGE))
    at_start = set(compiled)
    assert {("decoder_layer", PAGE), ("paged_decode", PAGE), ("kv_store", PAGE)} <= at_start
    assert {page for _, page in at_start} == {PAGE, None}
    compiled.clear()
    tokens_of(made, [submission(0), submission(1, 40)])
    assert compiled == []


def test_a_second_engine_compiles_nothing(swapped, compiled):
    limits = replace(ROOMY, page_tokens=PAGE)
    engine(swapped, limits=limits)
    compiled.clear()
    tokens_of(engine(swapped, limits=limits), [submission(0)])
    assert compiled == []
