"""The lagged scorer: a page measured low once may come back, and one measured high is kept."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from backend.cache import PagedCache
from backend.pagechoice import choose
from backend.rows import DecodeRows
from backend.sparse import SparseAttention
from controllers.selection import Pins

PAGES, SIZE, DIM = 12, 16, 16


def chosen(lag: dict[int, float]) -> set[int]:
    """Choose at coverage .6 where the keys of page 5 alone point along the query."""
    cache = PagedCache(
        layers=1, kv_heads=1, head_dim=DIM, n_pages=PAGES, page_tokens=SIZE, scorer="lagged"
    )
    k = torch.zeros(1, PAGES * SIZE, DIM)
    k[:, 5 * SIZE : 6 * SIZE, 0] = 4.0
    cache.write(0, k, k, torch.arange(PAGES * SIZE))
    assert cache.lag is not None
    for page, mass in lag.items():
        cache.lag[0, 0, page] = mass
    rows = DecodeRows(
        request_ids=(0,),
        at=torch.zeros(1, dtype=torch.long),
        table=torch.arange(PAGES, dtype=torch.int32)[None],
        n_pages=torch.tensor([PAGES], dtype=torch.int32),
        tails=torch.tensor([SIZE], dtype=torch.int32),
        coverage=torch.tensor([0.6]),
        counted=torch.tensor([True]),
        units=PAGES,
    )
    step = SimpleNamespace(cache=cache, sparse=SparseAttention(scorer="lagged"), pins=Pins())
    pages, kept = choose(step, 0, rows, torch.eye(DIM)[None, None, :1].expand(-1, -1, 2, -1), 1.0)
    return set(pages[0, 0, : int(kept)].tolist())


def test_an_estimate_that_rises_beats_an_old_measurement():
    assert 5 in chosen({})
    assert 5 in chosen({5: 0.0})


def test_a_measurement_beats_an_estimate_that_is_too_low():
    assert 3 not in chosen({})
    assert 3 in chosen({3: 0.9})
