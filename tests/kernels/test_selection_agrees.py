"""The device selection reads the pages its numpy definition names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from controllers.selection import CoverageSelection, Pins
from kernels.page_select import naive, native


@pytest.mark.parametrize("twin", [naive, native], ids=["naive", "native"])
@pytest.mark.parametrize("pages", [1, 3, 5, 40])
@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("pins", [Pins(), Pins(first=2, recent=1, min_pages=9)])
def test_both_select_the_same_pages(twin, pages: int, coverage: float, pins: Pins) -> None:
    mass = np.random.default_rng(pages).dirichlet(np.full(pages, 0.3), size=6).astype(np.float32)
    want = CoverageSelection(coverage=coverage).keep(mass, pins)
    table = torch.arange(pages, dtype=torch.int32)[None]
    count, asked = torch.tensor([pages], dtype=torch.int32), torch.tensor([coverage])
    listed, kept = twin.select_pages(torch.from_numpy(mass)[None], table, count, asked, pins)
    for head in range(6):
        got = np.unique(listed[0, head, : int(kept[0, head])].numpy())
        np.testing.assert_array_equal(got, np.flatnonzero(want[head]))
