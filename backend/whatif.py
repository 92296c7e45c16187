"""What pruned attention really does to H: extra passes of the same token at each recorded coverage.

They run before the real pass, which then overwrites the K, V and page statistics they wrote. So a
recording stays dense and its what-ifs cost only time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from backend.sensors import entropy_varentropy, kl_divergence
from backend.steps import forward, prepare
from controllers.serving.messages import Row
from traces.schema import COVERAGES, PRUNED_NODES, X_NODES, C, P

if TYPE_CHECKING:
    from backend.executor import LiveExecutor


def pruned_logits(
    executor: LiveExecutor, rows: Sequence[Row], pages: Mapping[int, list[int]]
) -> dict[int, Tensor]:
    """Return each one-token row's logits at every recorded coverage, ``[C, n]`` by request id."""
    if not rows:
        return {}
    cache, per_coverage = executor.cache, []
    # A what-if asks what pruning does, not whether it pays.
    sparse = replace(executor.sparse, min_pages=1)
    for coverage in COVERAGES:
        pruned = [row._replace(coverage=float(coverage)) for row in rows]
        step = prepare(pruned, pages, cache, executor.pins, sparse=sparse)
        per_coverage.append(
            forward(executor.loaded.model, executor.tokens_of(pruned), pruned, step).cpu()
        )
    stacked = torch.stack(per_coverage, dim=1)  # [rows, C, n]
    return {row.request_id: stacked[i] for i, row in enumerate(rows)}


def compare(dense: Tensor, pruned: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return pruned H at ``X_NODES[PRUNED_NODES]`` ``[C, P]`` and KL(dense || pruned) ``[C]``,
    nats.

    Args:
        dense: logits ``[n]``; pruned: logits ``[C, n]``.
    """
    entropies = np.empty((C, P), np.float32)
    for column, node in enumerate(PRUNED_NODES):
        x = torch.full((C,), float(X_NODES[node]))
        entropies[:, column] = entropy_varentropy(pruned, x)[0].numpy()
    return entropies, kl_divergence(dense.expand_as(pruned), pruned).numpy()
