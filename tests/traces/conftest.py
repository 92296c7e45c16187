"""A small trace that exercises every column, and the metadata it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces.schema import C, N, P, S
from traces.store import TraceWriter

Columns = dict[str, np.ndarray]


@pytest.fixture
def metadata() -> dict[str, Any]:
    return {
        "model": "test-model",
        "weights_sha256": "0" * 64,
        "t_cal": 1.0,
        "page_tokens": 16,
        "layers": 30,
        "kv_heads": 3,
        "page_unit_bytes": 8192,
        "pins": {"first": 1, "recent": 2},
        "commit": "test",
        "command": "record --test",
        "versions": {"numpy": np.__version__},
    }


@pytest.fixture
def make_columns() -> Callable[..., Columns]:
    def make(request: int, rows: int, prompt_tokens: int = 40, every: int = 3) -> Columns:
        rng = np.random.default_rng(request)

        def uniform(*shape: int) -> np.ndarray:
            return rng.random((rows, *shape), dtype=np.float32)

        columns = {
            "request": np.full(rows, request),
            "position": np.arange(rows),
            "context": prompt_tokens + np.arange(rows),
            "token": rng.integers(0, 49_152, rows),
            "h_pruned": uniform(C, P),
            "kl_pruned": uniform(C),
        }
        columns |= {name: uniform(N) for name in ("h", "v")}
        columns |= {
            name: uniform(S, C) for name in ("kept_mean", "kept_max", "dropped", "evictable")
        }
        scalars = ("x_applied", "h_applied", "surprisal", "h_cal", "v_cal")
        columns |= {name: uniform() for name in scalars}
        unsampled = np.arange(rows) % every != 0
        columns["h_pruned"][unsampled] = np.nan
        columns["kl_pruned"][unsampled] = np.nan
        return columns

    return make


@pytest.fixture
def make_request() -> Callable[..., dict[str, Any]]:
    def make(request: int, rows: int, /, **changes: Any) -> dict[str, Any]:
        row = {
            "request": request,
            "prompt_id": f"made/{request}",
            "task_class": ("code", "reasoning")[request % 2],
            "source": "made",
            "prompt_sha256": "f" * 64,
            "prompt_tokens": 40,
            "output_tokens": rows,
            "finish_reason": "length",
            "temperature": 0.8,
            "seed": request,
        }
        return row | changes

    return make


@pytest.fixture
def write_small(
    metadata: dict[str, Any],
    make_columns: Callable[..., Columns],
    make_request: Callable[..., dict[str, Any]],
) -> Callable[[Path], list[Columns]]:
    """Write a trace of three requests (one of them empty) and return what was written."""

    def write(path: Path, lengths: tuple[int, ...] = (7, 0, 12)) -> list[Columns]:
        written = [make_columns(i, rows) for i, rows in enumerate(lengths)]
        with TraceWriter(path, metadata) as writer:
            for i, columns in enumerate(written):
                writer.add_request(make_request(i, lengths[i]))
                writer.add_tokens(columns)
        return written

    return write
