"""Everything a step may call is compiled before the first one: no request waits for a compiler."""

from __future__ import annotations

import torch

from backend.layer import LeanLayer
from backend.models import LoadedModel
from backend.sensors import row_stats
from backend.sparse import SparseAttention
from kernels.native.library import warm


def warm_up(loaded: LoadedModel, page_tokens: int, sparse: SparseAttention) -> None:
    """Compile, or find compiled, the kernels that this model's steps use over pages of this size.

    A kernel takes seconds to compile, the layer's some ten. Only the page size given is compiled
    for, and only the scorer given.
    """
    group, low_bit = loaded.heads // loaded.kv_heads, sparse.scorer == "low_bit"
    warm(group=group, dim=loaded.head_dim, page_tokens=page_tokens, low_bit=low_bit)
    row_stats(torch.zeros(1, 1), torch.zeros(1, 1))
    for module in loaded.model.modules():
        if isinstance(module, LeanLayer):
            module.warm(page_tokens)
