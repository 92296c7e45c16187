"""Buffers of any size are zero, whole and of the asked format."""

from __future__ import annotations

import gc

import pytest
import torch

from backend.memory import HUGE, zeros


@pytest.mark.parametrize("shape", [(3, 5), (2, HUGE // 4), (3, HUGE // 8 + 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_is_zero_and_all_of_it_can_be_written(shape, dtype):
    buffer = zeros(*shape, dtype=dtype)
    assert buffer.shape == shape
    assert buffer.dtype == dtype
    assert not buffer.any()
    buffer.fill_(1.0)
    assert bool((buffer == 1.0).all())


def test_a_view_keeps_its_memory_alive():
    row = zeros(2, HUGE)[1]
    gc.collect()
    row.fill_(3.0)
    assert float(row.sum()) == 3.0 * HUGE
