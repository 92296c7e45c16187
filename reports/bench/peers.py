"""The others, in the same process: stock transformers with its own weights, and SDPA alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.models import LoadedModel, fetch_default
from reports.bench.rows import BenchError

PEERS = ("transformers", "sdpa")
FILL_TOKENS = 2048  # batch x chunk of one filling pass, which bounds its activations


def require_peers(names: Iterable[str], known: Sequence[str] = PEERS) -> tuple[str, ...]:
    """Return ``names`` as a tuple; raise ``BenchError`` at one that is not ``known``."""
    found = tuple(names)
    for name in found:
        if name not in known:
            raise BenchError(f"peers must be among {', '.join(known)}; got {name!r}")
    return found


def stock(model: str | Path | None) -> Any:
    """Load a model as ``transformers`` would by itself, with ``sdpa``, in float32.

    Its weights are its own: what we do to ours to make them fast cannot help the peer.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = fetch_default() if model is None else model
    network: Any = AutoModelForCausalLM.from_pretrained(
        str(place), dtype=torch.float32, attn_implementation="sdpa"
    )
    network.generation_config.eos_token_id = None  # runs are of a fixed length
    return network.eval()


class StockSteps:
    """Decode steps of a stock model with a ``DynamicCache``, as its ``generate`` takes them."""

    def __init__(self, network: Any, rows: Sequence[Sequence[int]]) -> None:
        self.filled = 0
        self._network = network
        self._ids = torch.tensor([list(row) for row in rows])
        self._layers: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def fill(self, context: int) -> None:
        """Compute the KV of every row's first ``context`` tokens, from where it was left."""
        chunk = max(1, FILL_TOKENS // len(self._ids))
        cache = _cache(self._layers)
        for start in range(self.filled, context, chunk):
            ids = self._ids[:, start : min(start + chunk, context)]
            self._network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self.filled = context

    @torch.no_grad()
    def decode(self, batch: int) -> tuple[float, tuple[int, ...]]:
        """Decode one token in each of the first ``batch`` rows; return seconds and the tokens."""
        cache = _cache([(k[:batch], v[:batch]) for k, v in self._layers])
        ids = self._ids[:batch, self.filled : self.filled + 1]
        started = time.perf_counter()
        out = self._network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens = out.logits[:, -1].argmax(-1)
        elapsed = time.perf_counter() - started
        return elapsed, tuple(tokens.tolist())

    @torch.no_grad()
    def prefill(self, index: int, end: int) -> tuple[float, tuple[int, ...]]:
        """Compute one row's first ``end`` tokens in one pass; return seconds, next token."""
        ids = self._ids[index : index + 1, :end]
        started = time.perf_counter()
        out = self._network(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = int(out.logits[0, -1].argmax())
        return time.perf_counter() - started, (token,)


class PackedSdpa:
    """Attention of a step and nothing else: torch's SDPA over caches packed for it.

    Queries of one KV head are laid on the query axis, so that K and V are read once for all.
    """

    def __init__(self, loaded: LoadedModel, batch: int, context: int) -> None:
        sizes = (loaded.layers, batch, loaded.kv_heads)
        groups = loaded.heads // loaded.kv_heads
        self._q = torch.ones(*sizes, groups, loaded.head_dim)
        self._k = torch.ones(*sizes, context + 1, loaded.head_dim)
        self._v = torch.ones(*sizes, context + 1, loaded.head_dim)
        self._scale = 1.0 / math.sqrt(loaded.head_dim)

    @property
    def kv_bytes(self) -> int:
        """Bytes of K and V read by one step."""
        return self._k.nbytes + self._v.nbytes

    @torch.no_grad()
    def __call__(self) -> float:
        """Attend in every layer once; return seconds."""
        started = time.perf_counter()
        for q, k, v in zip(self._q, self._k, self._v, strict=True):
            F.scaled_dot_product_attention(q, k, v, scale=self._scale)
        return time.perf_counter() - started


def _cache(layers: Sequence[tuple[Tensor, Tensor]]) -> Any:
    """Return a cache whose layers hold the given tensors themselves, not copies."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
