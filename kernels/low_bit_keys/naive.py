"""Page mass from 4-bit keys: every token is scored, but an eighth of a float32 key is read.

After Twilight's estimator (arXiv 2502.02770). Shapes: B rows, Hkv KV heads, G queries per KV head,
D head size, P tokens per page, n pages of the longest row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 15  # of 4 bits, two channels to a byte
BYTES_OF_RANGE = 4  # scale and low, float16 each
HALF_MAX = 65504.0  # largest float16


class KeyCodes(NamedTuple):
    """Keys to 4 bits between each token's own least and greatest channel."""

    codes: Tensor  # uint8 [..., ceil(D / 2)]: channel 2i in the low half of byte i
    scale: Tensor  # float16 [...]
    low: Tensor  # float16 [...]


def encode(k: Tensor) -> KeyCodes:
    """Code keys ``[..., D]``; a channel comes back within scale / 2 and float16's rounding.

    Non-finite keys give finite codes that mean nothing.
    """
    k = k.float().nan_to_num(nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX)
    low = k.amin(-1).clamp(-HALF_MAX, HALF_MAX).half()
    scale = ((k.amax(-1) - low.float()) / LEVELS).clamp(0.0, HALF_MAX).half()
    step = scale.float().clamp_min(torch.finfo(torch.float16).smallest_normal)
    level = ((k - low.float()[..., None]) / step[..., None]).round().clamp(0, LEVELS)
    level = level.to(torch.uint8)
    if level.shape[-1] % 2:
        level = torch.nn.functional.pad(level, (0, 1))
    return KeyCodes(level[..., ::2] | level[..., 1::2] << 4, scale, low)


def decode(coded: KeyCodes, dim: int) -> Tensor:
    """Return the keys that codes stand for, float32 ``[..., D]``."""
    level = torch.stack((coded.codes & LEVELS, coded.codes >> 4), -1).flatten(-2)[..., :dim]
    return level.float() * coded.scale.float()[..., None] + coded.low.float()[..., None]


def estimate_mass(
    q: Tensor,
    coded: KeyCodes,
    table: Tensor,
    n_pages: Tensor,
    tails: Tensor,
    scaling: float,
) -> Tensor:
    """Return each page's share of softmax(q k~), k~ being the coded keys, mean over the group.

    Args:
        q: ``[B, Hkv, G, D]``; coded: of keys ``[Hkv, pool, P, D]``, the whole layer.
        table: int32 ``[B, n]``, physical pages in sequence order; n_pages, tails: int32 ``[B]``.
        scaling: the attention scale, usually ``1/sqrt(D)``.

    Returns:
        float32 ``[B, Hkv, n]``, summing to 1 over a row's pages, 0 in padding.
    """
    size = coded.scale.shape[-1]
    index = torch.arange(table.shape[1], device=q.device)
    listed = index < n_pages[:, None]
    safe = torch.where(listed, table, 0).long()
    keys = decode(KeyCodes(*(part[:, safe] for part in coded)), q.shape[-1])  # [Hkv, B, n, P, D]
    keys = keys.transpose(0, 1).flatten(2, 3)
    scores = torch.matmul(q.float(), keys.mT) * scaling  # [B, Hkv, G, n P]
    partial = index == n_pages[:, None] - 1
    filled = torch.where(partial, tails[:, None], size)
    slot = torch.arange(size, device=q.device)
    seen = listed[..., None] & (slot < filled[..., None])  # [B, n, P]
    scores = scores.masked_fill_(~seen.flatten(1)[:, None, None], float("-inf"))
    return scores.softmax(-1).mean(2).unflatten(-1, (-1, size)).sum(-1)


def bytes_share(dim: int, number_bytes: int) -> float:
    """Return the bytes of a token's code over those of its K and V of ``number_bytes`` each."""
    return ((dim + 1) // 2 + BYTES_OF_RANGE) / (2 * dim * number_bytes)
