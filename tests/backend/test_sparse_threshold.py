"""Live engine and simulator choose pages from the same context on: one threshold of a device."""

from __future__ import annotations

import numpy as np
import pytest

from backend.cache import PagedCache
from backend.sparse import SparseAttention
from backend.steps import prepare
from controllers.core import TokenSignal
from controllers.presets import get_preset
from controllers.selection import Pins
from controllers.serving.coverage_control import CoverageControl
from controllers.serving.messages import Row
from controllers.serving.request import Request, Sequence
from traces.profile import read_profile
from traces.profiles import CPU

PAGE = 16
PRESET = get_preset("attention")


def planned(preset, context: int) -> float:
    """Return the coverage that the serving loop plans for a row of so many tokens."""
    control = CoverageControl(preset)
    request = Request(request_id=1, prompt_tokens=context - 1, max_tokens=8)
    low = np.zeros(1, np.float32)
    fields = dict.fromkeys(TokenSignal._fields, low) | {"enabled": low + 1.0}
    control.observe([1], [request], TokenSignal(**fields))
    sequence = Sequence(request=request, arrival_ns=0)
    sequence.computed, sequence.generated = context - 1, 1
    coverage, probe = control.row(sequence)
    assert not probe
    return coverage


def executed(coverage: float, context: int) -> float:
    """Return the coverage that the live executor reads such a row with, at its defaults."""
    pages = -(-context // PAGE)
    cache = PagedCache(layers=1, kv_heads=1, head_dim=8, n_pages=pages, page_tokens=PAGE)
    row = Row(1, context - 1, 1, True, coverage, False)
    step = prepare([row], {1: list(range(pages))}, cache, Pins(), sparse=SparseAttention())
    assert step.decode is not None
    return float(step.decode.coverage[0])


@pytest.mark.parametrize("context", [511, 512, 2032, 2033, 2048, 4000])
def test_rows_are_pruned_live_and_simulated_at_the_same_contexts(context: int):
    simulated = planned(read_profile(CPU).served(PRESET), context)
    live = executed(planned(PRESET, context), context)
    assert simulated == pytest.approx(live)
    assert (simulated < 1.0) == (context >= 2033)


def test_the_shipped_cpu_profile_carries_the_engines_own_threshold():
    profile = read_profile(CPU)
    assert profile.limits["page_tokens"] == PAGE
    assert profile.sparse_from_tokens == SparseAttention().from_tokens(PAGE)
    assert -(-profile.sparse_from_tokens // PAGE) == SparseAttention().min_pages
