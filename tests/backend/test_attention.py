"""A forward pass over the paged cache: where pages lie, what they held before, who watches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.attention import StepInputs, paged_attention
from backend.cache import PagedCache
from backend.executor import LiveExecutor
from backend.recorder import TraceRecorder
from backend.sparse import SparseAttention
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from kernels.page_select.naive import Pins
from tests.backend.driven import ALL_BUT_NOTHING, PROMPT, SIZE, STEPS, TABLE, Run
from tests.backend.tiny import CONTEXT, ROOMY, STOP, prompt_of


def test_watching_a_dense_run_changes_no_bit_of_it(tiny):
    plain, watched = Run(tiny), Run(tiny, TraceRecorder())
    assert plain.decode() == watched.decode()
    assert all(map(torch.equal, plain.logits, watched.logits))


@pytest.mark.parametrize("coverage", [1.0, 0.9])
def test_output_does_not_depend_on_which_pages_were_given(tiny, coverage):
    ordered, shuffled = Run(tiny), Run(tiny)
    table = np.random.default_rng(0).permutation(ROOMY.n_pages)[: len(TABLE)].tolist()
    assert ordered.decode(coverage) == shuffled.decode(coverage, table)
    assert ordered.units == shuffled.units
    prefill, *decodes = zip(ordered.logits, shuffled.logits, strict=True)
    torch.testing.assert_close(*prefill, rtol=0.0, atol=0.0)
    assert all(torch.equal(a, b) for a, b in decodes)


def test_coverage_that_keeps_every_page_is_dense(tiny):
    dense, sparse = Run(tiny), Run(tiny)
    assert dense.decode() == sparse.decode(ALL_BUT_NOTHING)
    assert dense.units == sparse.units
    assert all(map(torch.equal, dense.logits, sparse.logits))


def test_less_coverage_reads_fewer_pages_and_says_so(tiny):
    run = Run(tiny)
    run.decode(0.8)
    prefill, *decodes = run.units
    assert prefill == (0, 0)  # only decode rows count
    for step, (read, dense) in enumerate(decodes):
        pages = -(-(PROMPT + step + 1) // SIZE)
        assert dense == tiny.layers * tiny.kv_heads * pages
        assert tiny.layers * tiny.kv_heads * 4 <= read < dense


@pytest.mark.parametrize("coverage", [1.0, 0.9, ALL_BUT_NOTHING])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_what_a_page_held_before_never_leaks(tiny, coverage, poison):
    table = TABLE[::-1]  # no extent: whole pages are gathered, beyond the last token too
    clean, dirty = Run(tiny), Run(tiny)
    for store in (dirty.executor.cache.k, dirty.executor.cache.v):
        store.fill_(poison)
    for part in (p for layer in dirty.executor.cache.stats for p in layer):
        part.fill_(poison)
    dirty.executor.cache.surprisal.fill_(poison)
    assert clean.decode(coverage, table) == dirty.decode(coverage, table)
    assert all(map(torch.equal, clean.logits, dirty.logits))


def test_chunks_of_a_prompt_add_up_to_the_prompt(tiny):
    whole, pieces = Run(tiny), Run(tiny)
    whole.decode()
    prompt = prompt_of(PROMPT, 0)
    request = Request(request_id=0, prompt_tokens=PROMPT, max_tokens=STEPS, temperature=0.0)
    pieces.executor.add(request, prompt)
    start = 0
    for n in (1, 15, 16, 17, 1, 50, 49, 1):  # ends on, before and after page boundaries
        last = start + n == PROMPT
        pieces.step(Row(0, start, n, last, 1.0, False), TABLE)
        start += n
    torch.testing.assert_close(pieces.logits[-1], whole.logits[0], rtol=1e-5, atol=1e-5)
    cache, reference = pieces.executor.cache, whole.executor.cache
    full = PROMPT // SIZE  # pages the two runs fill alike
    for ours, theirs in zip(cache.stats, reference.stats, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(part[:, :full], other[:, :full], rtol=1e-4, atol=1e-5)


def test_page_statistics_are_the_moments_of_the_keys(tiny):
    run = Run(tiny)
    run.decode(0.9)
    cache = run.executor.cache
    length = PROMPT + STEPS - 1  # the last token was sampled, not computed
    counts = torch.full((len(TABLE),), float(SIZE))[: -(-length // SIZE)]
    counts[-1] = length - (len(counts) - 1) * SIZE
    for layer in range(tiny.layers):
        mean, var = cache.stats[layer]
        for page, count in enumerate(counts.long().tolist()):
            keys = cache.k[layer, :, page * SIZE : page * SIZE + count]
            torch.testing.assert_close(mean[:, page], keys.mean(1), rtol=1e-4, atol=1e-5)
            expected = keys.var(1, correction=0)
            torch.testing.assert_close(var[:, page], expected, rtol=1e-3, atol=1e-3)


def test_paged_attention_is_stock_attention(tiny):
    run = Run(tiny)
    tokens = run.decode()
    ids = torch.tensor([[*prompt_of(PROMPT, 0), *tokens]])
    tiny.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            stock = tiny.model(input_ids=ids).logits[0, PROMPT - 1 : -1]
    finally:
        tiny.model.set_attn_implementation("entropic")
    assert STOP not in tokens
    assert ids.shape[1] < CONTEXT
    torch.testing.assert_close(torch.cat(run.logits), stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("extra", [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}])
def test_attention_of_another_kind_is_refused(extra):
    nothing = torch.zeros(1, 2, 1, 4)
    cache = PagedCache(layers=1, kv_heads=2, head_dim=4, n_pages=1, page_tokens=SIZE)
    slots = torch.zeros(0, dtype=torch.long)
    step = StepInputs(
        cache=cache,
        rows=(),
        chunks=[],
        decode=None,
        slots=slots,
        sparse=SparseAttention(),
        pins=Pins(),
    )
    with pytest.raises(ValueError, match="not supported"):
        paged_attention(None, nothing, nothing, nothing, None, scaling=1.0, step=step, **extra)


def test_a_prompt_of_one_token_is_served(tiny):
    limits = EngineLimits(max_seqs=1, token_budget=4, n_pages=4, max_context=32)
    executor = LiveExecutor(tiny, get_preset("full"), limits)
    executor.add(Request(request_id=0, prompt_tokens=1, max_tokens=2, temperature=0.0), (65,))
    first = executor.execute(Plan(0, (Row(0, 0, 1, True, 1.0, False),)), {0: [0]})
    tiny.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            stock = tiny.model(input_ids=torch.tensor([[65]])).logits[0, -1]
    finally:
        tiny.model.set_attn_implementation("entropic")
    assert first.tokens == (int(stock.argmax()),)
