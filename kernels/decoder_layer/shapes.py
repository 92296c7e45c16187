"""What a decoder layer for one-token rows works on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from controllers.selection import Pins
from kernels.page_stats import PageStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a layer that rotates its queries and keys, has one MLP with a SiLU gate."""

    width: int  # numbers of a token between layers
    inner: int  # outputs of the gated pair
    kv_heads: int
    group: int  # queries per KV head
    dim: int  # of a head

    @property
    def queries(self) -> int:
        """Query heads."""
        return self.kv_heads * self.group

    @property
    def heads(self) -> int:
        """Heads of queries, keys and values of a token."""
        return self.queries + 2 * self.kv_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A layer's weights, float32; matrices packed as ``kernels.skinny_linear`` takes them."""

    first: Tensor  # [width], of the norm before attention
    inputs: Tensor  # of queries, keys and values, side by side
    inputs_bias: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    second: Tensor  # [width], of the norm before the gated pair
    gate: Tensor
    up: Tensor
    down: Tensor
    first_eps: float
    second_eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How many of their pages rows read: those that reach a share of the estimated mass."""

    coverage: Tensor  # float32 [M] in (0, 1]; rows at 1 read all
    pins: Pins


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A step's M one-token rows: where each stands and the pages it attends to."""

    cos: Tensor  # [M, D], of the angles
    sin: Tensor
    slots: Tensor  # int64 [M], each in a page of its own: where keys and values go
    table: Tensor  # int32 [M, m], pages in sequence order
    n_pages: Tensor  # int32 [M], pages of each row
    tails: Tensor  # int32 [M], tokens in the last page, the new one included
    scaling: float
    choice: Choice | None = None  # None: every row reads all its pages


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPages:
    """The keys and values of a layer by page, and statistics of each page; written in place."""

    k: Tensor  # [Hkv, n_pages, P, D]
    v: Tensor
    stats: PageStats | None
