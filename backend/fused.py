"""Several packed linear layers of the same input as one: one call, and work that splits evenly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backend.linear import Blocks, PackedLinear
from kernels.skinny_linear import native


class FusedLinear:
    """Outputs of layers side by side, over one packed weight of which theirs become views.

    ``packed`` and ``bias`` are the joined ones. The layers go on working alone. Once one of them is
    given another weight (moved to a dtype or device), ``holds`` is false and the fused product must
    not be used.
    """

    def __init__(self, layers: Sequence[PackedLinear]) -> None:
        """Join layers for which :meth:`possible` holds."""
        parts = [layer.blocks for layer in layers]
        assert all(part is not None for part in parts)
        self._layers = tuple(layers)
        self._parts: list[Blocks] = [part for part in parts if part is not None]
        self.packed = torch.cat([part.packed for part in self._parts])
        self.widths = tuple(layer.out_features for layer in layers)
        first = 0
        for part in self._parts:
            part.packed = self.packed[first : first + len(part.packed)]
            first += len(part.packed)
        biases = [layer.bias for layer in layers]
        self.bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])

    @staticmethod
    def possible(layers: Sequence[nn.Module]) -> bool:
        """Whether layers can be joined: packed in whole blocks, one input, biased all or none."""
        packed = [layer for layer in layers if isinstance(layer, PackedLinear)]
        if len(packed) < len(layers) or any(layer.blocks is None for layer in packed):
            return False
        blocks = [layer.blocks for layer in packed if layer.blocks is not None]
        whole = all(b.packed.shape[2] * len(b.packed) == b.outputs for b in blocks)
        inputs = {layer.in_features for layer in packed}
        return whole and len(inputs) == 1 and len({layer.bias is None for layer in packed}) == 1

    @property
    def holds(self) -> bool:
        """Whether every layer still has the weight that was joined."""
        pairs = zip(self._layers, self._parts, strict=True)
        return all(layer.blocks is part for layer, part in pairs)

    def __call__(self, x: Tensor) -> Tensor:
        """Return every layer's output side by side, ``[..., sum of widths]``."""
        return native.linear(x, self.packed, sum(self.widths), self.bias)
