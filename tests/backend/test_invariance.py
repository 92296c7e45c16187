"""What must not change a request: where its pages lie, who else is served, how work is cut up.

A known sequence is fed to the engine's executor: a prompt in chunks, then the rest one token at a
time, so that every run sees the same tokens and logits can be compared row by row.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

import kernels
from backend.executor import LiveExecutor
from backend.models import LoadedModel
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from kernels.native.build import compile, find_compiler
from kernels.paged_decode import native
from tests.backend.tiny import EVEN_IF_SHORT, prompt_of, tampered

TOKENS, PROMPT = 230, 200  # fed in all, and as a prompt
POOL = 400  # token positions
ROUNDING = 1e-4  # float32 sums in another order; 4e-5 was seen, on logits up to 14


@dataclass(slots=True)
class Feed:
    """Feeds sequences to an executor and keeps the logits of each request's one-token rows."""

    loaded: LoadedModel
    page_tokens: int = 16
    coverage: float = 1.0
    logits: list[Tensor] = field(default_factory=list)
    executor: LiveExecutor = field(init=False)
    _tables: dict[int, list[int]] = field(default_factory=dict)
    _step: int = 0

    def __post_init__(self) -> None:
        limits = EngineLimits(
            max_seqs=4,
            token_budget=POOL,
            n_pages=POOL // self.page_tokens,
            max_context=POOL,
            page_tokens=self.page_tokens,
        )
        watched = tampered(self.loaded, self._keep)
        self.executor = LiveExecutor(watched, get_preset("baseline"), limits, sparse=EVEN_IF_SHORT)

    def _keep(self, _: object, logits: Tensor) -> Tensor:
        self.logits.append(logits[0].clone())
        return logits

    def add(self, request_id: int, tokens: Sequence[int], table: list[int]) -> None:
        request = Request(
            request_id=request_id, prompt_tokens=len(tokens), max_tokens=TOKENS, temperature=0.0
        )
        self.executor.add(request, tokens)
        self._tables[request_id] = table

    def step(self, *parts: tuple[int, int, int]) -> Tensor:
        """Run one step of (request, start, tokens), and return its logits; each row samples."""
        rows = tuple(Row(i, start, n, True, self.coverage, False) for i, start, n in parts)
        self.executor.execute(Plan(self._step, rows), dict(self._tables))
        self._step += 1
        return self.logits[-1]


def fed(
    loaded: LoadedModel,
    *,
    table: list[int] | None = None,
    chunks: Sequence[int] = (PROMPT,),
    company: bool = False,
    page_tokens: int = 16,
    coverage: float = 1.0,
) -> Tensor:
    """Return the logits of the last token of each chunk's end and of every one-token row."""
    feed = Feed(loaded, page_tokens, coverage)
    needed = -(-TOKENS // page_tokens)
    feed.add(0, prompt_of(TOKENS, 3), list(range(needed)) if table is None else table)
    if company:  # two others: one decodes along, one brings chunks of its prompt
        rest = list(range(needed, POOL // page_tokens))
        feed.add(1, prompt_of(70, 4), rest[:5])
        feed.add(2, prompt_of(70, 5), rest[5:10])
        feed.step((1, 0, 30), (2, 0, 10))
    at, kept = 0, []
    for n in chunks:
        feed.step((0, at, n))
        at += n
    kept.append(feed.logits[-1][0])
    for i, at in enumerate(range(PROMPT, TOKENS)):
        if company and i % 3:
            kept.append(feed.step((2, 10 + i, 2 - i % 2), (0, at, 1), (1, 30 + i, 1))[1])
        else:
            kept.append(feed.step((0, at, 1))[0])
    return torch.stack(kept)


@pytest.mark.parametrize("page_tokens", [5, 16])
@pytest.mark.parametrize("coverage", [1.0, 0.8])
def test_where_pages_lie_changes_no_bit(tiny, coverage, page_tokens):
    expected = fed(tiny, coverage=coverage, page_tokens=page_tokens)
    pages = list(range(POOL // page_tokens))
    random.Random(0).shuffle(pages)
    table = pages[: -(-TOKENS // page_tokens)]
    found = fed(tiny, coverage=coverage, page_tokens=page_tokens, table=table)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("coverage", [1.0, 0.8])
def test_requests_beside_it_change_a_request_by_no_more_than_rounding(tiny, coverage):
    alone = fed(tiny, coverage=coverage)
    torch.testing.assert_close(
        fed(tiny, coverage=coverage, company=True), alone, rtol=0, atol=ROUNDING
    )


def test_the_tolerance_is_far_below_what_pruning_does(tiny):
    assert (fed(tiny, coverage=0.8) - fed(tiny)).abs().max() > 1000 * ROUNDING


@pytest.mark.parametrize("chunks", [(64, 64, 72), (1, 7, 120, 1, 71), (1,) * 40 + (160,)])
def test_how_a_prompt_is_cut_changes_it_by_no_more_than_rounding(tiny, chunks):
    assert sum(chunks) == PROMPT
    torch.testing.assert_close(fed(tiny, chunks=chunks), fed(tiny), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("page_tokens", [1, 5, 17])
def test_the_page_size_changes_dense_attention_by_no_more_than_rounding(tiny, page_tokens):
    found = fed(tiny, page_tokens=page_tokens)
    torch.testing.assert_close(found, fed(tiny), rtol=0, atol=ROUNDING)


def split_into(pages: int, folder: Path, dim: int, group: int, size: int):
    """Compile the decode kernel with another number of pages in a chunk."""
    source = Path(kernels.__path__[0])
    shutil.copytree(source / "native", folder / "native")
    shutil.copytree(source / "paged_decode", folder / "paged_decode")
    header = folder / "native" / "attention.h"
    text = header.read_text()
    assert text.count("constexpr int SPLIT = 64;") == 1
    header.write_text(text.replace("SPLIT = 64;", f"SPLIT = {pages};"))
    kernel = folder / "paged_decode" / "native.cpp"
    built = compile(kernel, {"D": dim, "G": group, "P": size}, folder / "built")
    assert built is not None
    return built


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_another_number_of_splits_changes_attention_by_no_more_than_rounding(
    tiny, tmp_path, monkeypatch
):
    expected = fed(tiny, page_tokens=5)  # 46 pages: one chunk
    built = split_into(7, tmp_path, tiny.head_dim, tiny.heads // tiny.kv_heads, 5)
    monkeypatch.setattr(native, "library", lambda *_: built)
    found = fed(tiny, page_tokens=5)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
    assert not torch.equal(found, expected)  # the other kernel did run
