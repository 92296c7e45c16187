"""Options of sparse attention: scorers, dense layers, blocks, holes, masses, short rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backend.cache import PagedCache
from backend.pagechoice import exact_mass
from backend.sparse import SCORERS, SparseAttention
from backend.steps import forward, prepare
from controllers.selection import Pins
from controllers.serving.messages import Row
from tests.backend.driven import PROMPT, SIZE, STEPS, TABLE, Run
from tests.backend.tiny import prompt_of

HOLE = -1


def options(**changes: object) -> SparseAttention:
    return SparseAttention(min_pages=1, **changes)


def shares(run: Run) -> list[float]:
    return [read / dense for read, dense in run.units[1:]]


def pages_read(run: Run, coverage: float, sparse: SparseAttention) -> int:
    """Compute one token after a run and return the pages it read."""
    row = Row(0, PROMPT + STEPS - 1, 1, True, coverage, False)
    step = prepare([row], {0: TABLE}, run.executor.cache, Pins(), sparse=sparse)
    with torch.no_grad():
        forward(run.executor.loaded.model, [65], [row], step)
    return step.page_units_read


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_reads_less_and_gives_dense_logits_when_it_keeps_everything(tiny, scorer):
    dense, every, pruned = Run(tiny), *(Run(tiny, sparse=options(scorer=scorer)) for _ in range(2))
    dense.decode()
    every.executor.pins = Pins(min_pages=len(TABLE))
    every.decode(0.8)
    assert all(map(torch.equal, dense.logits, every.logits))
    pruned.decode(0.8)
    assert max(shares(pruned)) < 1.0


def test_the_oracle_keeps_the_fewest_pages_that_hold_the_true_mass(tiny):
    run = Run(tiny, sparse=options(scorer="oracle"))
    run.decode()
    read = [pages_read(run, p, options(scorer="oracle")) for p in (0.5, 0.9, 0.999, 1.0)]
    assert read == sorted(read)
    assert read[0] < read[-1]
    rows = prepare(
        [Row(0, PROMPT + STEPS - 1, 1, True, 0.9, False)], {0: TABLE}, run.executor.cache, Pins()
    )
    q = torch.randn(1, tiny.kv_heads, 2, 16, generator=torch.Generator().manual_seed(0))
    mass = exact_mass(rows, 0, rows.decode, q, 0.25)
    length = PROMPT + STEPS
    k, _ = run.executor.cache.read(0, torch.tensor(TABLE), None, length)
    weights = torch.nn.functional.pad((q[0] @ k.mT * 0.25).softmax(-1).mean(1), (0, -length % SIZE))
    torch.testing.assert_close(mass[0], weights.unflatten(1, (-1, SIZE)).sum(-1))


def test_dense_layers_read_everything(tiny):
    run = Run(tiny, sparse=options(dense_layers=1))
    run.decode(0.8)
    every = Run(tiny, sparse=options(dense_layers=tiny.layers))
    every.decode(0.8)
    assert min(shares(run)) > 1.0 / tiny.layers
    assert max(shares(run)) < 1.0
    assert set(shares(every)) == {1.0}


def test_blocks_read_at_least_the_pages_chosen_one_by_one(tiny):
    run = Run(tiny)
    run.decode()
    single, blocks, every = (
        pages_read(run, p, options(block_pages=k)) for p, k in ((0.5, 1), (0.5, 3), (1.0, 3))
    )
    assert single <= blocks < every


def test_rows_too_short_to_gain_run_dense_and_are_counted(tiny):
    run, dense = Run(tiny, sparse=SparseAttention(min_pages=11)), Run(tiny)
    run.decode(0.8)
    dense.decode()
    read = shares(run)
    pages = [-(-(PROMPT + step + 1) // SIZE) for step in range(STEPS - 1)]
    assert all((share == 1.0) == (n < 11) for share, n in zip(read, pages, strict=True))
    assert 10 in pages
    assert 11 in pages
    rows = [Row(0, PROMPT, 1, True, 0.8, False), Row(1, PROMPT, 1, True, 1.0, False)]
    tables = {0: TABLE, 1: TABLE}
    step = prepare(rows, tables, run.executor.cache, Pins(), sparse=SparseAttention(min_pages=11))
    assert step.sparse_rows_run_dense == 1


def test_lagged_mass_is_the_mean_of_what_was_measured(tiny):
    run = Run(tiny, sparse=options(scorer="lagged", lag_rate=1.0))
    run.decode()
    lag = run.executor.cache.lag
    used = -(-(PROMPT + STEPS - 1) // SIZE)
    torch.testing.assert_close(
        lag[:, :, :used].sum(-1), torch.ones(tiny.layers, tiny.kv_heads), rtol=1e-4, atol=1e-4
    )
    assert lag[:, :, used:].isnan().all()
    run.executor.cache.open_pages([0, 1])
    assert lag[:, :, :2].isnan().all()


def holed(tiny, coverage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one token with two pages evicted, and again with their tokens really absent."""
    prompt, gone = prompt_of(PROMPT, 3), (2, 5)
    table = [HOLE if i in gone else page for i, page in enumerate(TABLE)]
    found = []
    for shown in (table, [page for page in table if page != HOLE]):
        cache = PagedCache(
            layers=tiny.layers, kv_heads=tiny.kv_heads, head_dim=16, n_pages=16, page_tokens=SIZE
        )
        with torch.no_grad():
            whole = Row(0, 0, PROMPT, True, 1.0, False)
            step = prepare([whole], {0: TABLE}, cache, Pins())
            forward(tiny.model, list(prompt), [whole], step)
            start = PROMPT - (0 if shown is table else len(gone) * SIZE)
            row = Row(0, start, 1, True, coverage, False)
            step = prepare([row], {0: shown}, cache, Pins(), sparse=options())
            if shown is not table:  # the token's own position is not moved by eviction
                row = Row(0, PROMPT, 1, True, coverage, False)
            found.append(forward(tiny.model, [65], [row], step))
            assert step.page_units_dense == tiny.layers * tiny.kv_heads * (10 - len(gone))
    return found[0], found[1]


@pytest.mark.parametrize("coverage", [1.0, 0.8])
def test_evicted_pages_are_not_attended_to(tiny, coverage):
    ours, expected = holed(tiny, coverage)
    assert torch.equal(ours, expected)


def test_a_prompt_chunk_after_an_eviction_sees_what_is_left(tiny):
    cache = PagedCache(
        layers=tiny.layers, kv_heads=tiny.kv_heads, head_dim=16, n_pages=16, page_tokens=SIZE
    )
    table = [HOLE if i == 1 else page for i, page in enumerate(TABLE)]
    tokens = list(prompt_of(100, 3))
    found = []
    with torch.no_grad():
        for pieces in ((4,), (1, 1, 1, 1)):
            row, at = Row(0, 0, 96, True, 1.0, False), 96
            forward(tiny.model, tokens[:96], [row], prepare([row], {0: TABLE}, cache, Pins()))
            for n in pieces:
                row = Row(0, at, n, True, 1.0, False)
                step = prepare([row], {0: table}, cache, Pins())
                logits = forward(tiny.model, tokens[at : at + n], [row], step)
                at += n
            found.append(logits)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_masses_of_a_step_are_the_largest_shares_of_each_page(tiny):
    run = Run(tiny)
    run.decode()
    executor, row = run.executor, Row(0, PROMPT + STEPS - 1, 1, True, 1.0, False)
    asked = options(measure_masses=True, measure_information=True)
    executor.cache.surprisal.fill_(math.nan)
    executor.cache.store_surprisal(torch.arange(SIZE * 3), torch.full((SIZE * 3,), 2.0))
    with torch.no_grad():
        step = prepare([row], {0: TABLE}, executor.cache, Pins(), sparse=asked)
        forward(tiny.model, [65], [row], step)
    used = -(-(PROMPT + STEPS) // SIZE)
    mass, information = step.mass.of(TABLE), step.mass.information_of(TABLE)
    assert float(mass[:used].sum()) >= 1.0 - 1e-5  # a maximum over heads of distributions
    assert (mass[:used] > 0).all()
    assert not mass[used:].any()
    torch.testing.assert_close(information[:3], 2.0 * mass[:3])
    assert not information[3:].any()  # no surprisal is known there
    assert step.mass.of([TABLE[1], HOLE]).tolist() == [float(mass[1]), 0.0]


def test_surprisal_stays_with_a_page_until_it_is_opened_anew():
    cache = PagedCache(layers=1, kv_heads=1, head_dim=4, n_pages=4, page_tokens=SIZE)
    cache.store_surprisal(torch.tensor([17, 18]), torch.tensor([0.5, 1.5]))
    assert cache.surprisal[1, 1:3].tolist() == [0.5, 1.5]
    assert int(cache.surprisal.isnan().sum()) == 4 * SIZE - 2
    cache.open_pages([1])
    assert cache.surprisal.isnan().all()


def test_other_rows_change_nothing_of_a_row(tiny):
    executor = Run(tiny).executor
    lengths, tables, page = (150, 37, 200), {}, 0
    order = np.random.default_rng(1).permutation(executor.cache.n_pages)
    rows = []
    with torch.no_grad():
        for i, length in enumerate(lengths):
            n = -(-(length + 1) // SIZE)
            tables[i], page = order[page : page + n].tolist(), page + n
            row = Row(i, 0, length, True, 1.0, False)
            step = prepare([row], tables, executor.cache, Pins())
            forward(tiny.model, list(prompt_of(length, i)), [row], step)
            rows.append(Row(i, length, 1, True, (1.0, 0.8, 0.9)[i], False))
        together = prepare(rows, tables, executor.cache, Pins(), sparse=options())
        logits = forward(tiny.model, [65] * 3, rows, together)
        for i, row in enumerate(rows):
            alone = prepare([row], tables, executor.cache, Pins(), sparse=options())
            one = forward(tiny.model, [65], [row], alone)
            torch.testing.assert_close(one[0], logits[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scorer", "best"),
        ("dense_layers", -1),
        ("block_pages", 0),
        ("min_pages", 0),
        ("lag_rate", 0.0),
        ("lag_rate", math.nan),
    ],
)
def test_a_bad_option_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must .*; got {name}={value!r}"):
        SparseAttention(**{name: value})
