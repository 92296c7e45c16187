"""What a decode step must read, and what a benchmark will allocate: refused before it is tried."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from backend.models import LoadedModel
from backend.setup import BYTES_PER_NUMBER, PAGE_TOKENS
from reports.bench.rows import BenchError

SPARE = 0.9  # share of the free memory a benchmark may take
GB = 1e9


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a model that every step reads, and of one token's K and V over all layers."""

    weights: int
    kv_per_token: int

    @classmethod
    def of(cls, loaded: LoadedModel) -> Sizes:
        """Return the sizes of ``loaded`` in float32.

        An embedding of its own is left out, for a step reads a row of it per token; one that is
        also the output projection is read whole. Weights are counted on a twin without storage:
        the engine may keep its own in a form that no longer shows as parameters.
        """
        with torch.device("meta"):
            twin = type(loaded.model)(loaded.model.config)
        inner, outer = twin.get_input_embeddings(), twin.get_output_embeddings()
        count = sum(weight.numel() for weight in twin.parameters())
        if outer is None or inner.weight is not outer.weight:
            count -= inner.weight.numel()
        total = count * BYTES_PER_NUMBER
        per_token = 2 * loaded.layers * loaded.kv_heads * loaded.head_dim * BYTES_PER_NUMBER
        return cls(total, per_token)


def needed_bytes(sizes: Sizes, batch: int, context: int, peers: Collection[str]) -> int:
    """Return the bytes a decode benchmark allocates on top of the loaded model.

    Our pool; for transformers its weights, its cache, and what one step's concatenation adds
    (a layer's old and new tensors live together, hence the cache twice); for SDPA a packed cache.
    """
    cache = batch * (context + PAGE_TOKENS) * sizes.kv_per_token
    total = cache + 2 * (1 << 29)  # the arrays of the copy
    if "transformers" in peers:
        total += sizes.weights + 2 * cache
    return total + (cache if "sdpa" in peers else 0)


def require_fits(
    sizes: Sizes, batch: int, context: int, peers: Collection[str], *, free: int | None
) -> None:
    """Raise ``BenchError`` with the figures if the benchmark would not fit in ``free`` bytes.

    None is a system that does not say; there it is tried.
    """
    needed = needed_bytes(sizes, batch, context, peers)
    if free is not None and needed > SPARE * free:
        named = f" and peers {', '.join(peers)}" if peers else ""
        raise BenchError(
            f"batch x context must fit in memory: {batch} x {context}{named} needs "
            f"{needed / GB:.1f} GB; got {SPARE * free / GB:.1f} GB (90 % of what is free)"
        )
