"""Linear layers packed once for oneDNN: at a decode step's few rows, the weights are the cost.

A plain ``nn.Linear`` hands row-major weights to the matrix library at every call. Packed to its
blocked layout they stream at memory speed: measured on two cores, 16 rows of SmolLM2-135M take
about .4 of the time, and prompt chunks of 512 rows no more than before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 16  # batch the layout is chosen for; one packing serves 1 to 512 rows
SMALLEST = 1 << 16  # weights below which nothing is gained


class PackedLinear(nn.Module):
    """A linear layer over a packed weight; computes what ``nn.Linear`` does, to rounding.

    Moved to another dtype or device it goes on with a plain weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack a weight ``[out, in]`` that is float32 in main memory."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._packed: Tensor | None = None
        self._plain: Tensor | None = None
        self._keep(weight)

    @property
    def weight(self) -> Tensor:
        """The weight, ``[out, in]``; a copy while it is packed."""
        if self._packed is not None:
            return self._packed.to_dense()
        assert self._plain is not None
        return self._plain

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``; x ``[..., in]``."""
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")

    def _keep(self, weight: Tensor) -> None:
        packable = weight.dtype is torch.float32 and weight.device.type == "cpu"
        self._plain = None if packable else weight
        self._packed = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS) if packable else None
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:  # noqa: FBT001, FBT002
        super()._apply(fn, recurse)
        self._keep(fn(self.weight))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLinear:
        twin = PackedLinear(self.weight.clone(), copy.deepcopy(self.bias, memo))
        return twin.train(self.training)

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


def prepare_for_cpu(model: nn.Module) -> int:
    """Pack the linear layers of a model for decoding on CPU; return how many were.

    Layers that are not float32 in main memory, or small, stay as they are. A weight shared with
    the embedding is packed in a copy. Where torch was built without oneDNN nothing happens.
    """
    if not _available():
        return 0
    packed = 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and _worth_packing(child.weight):
                bias = None if child.bias is None else child.bias.detach()
                twin = PackedLinear(child.weight.detach(), bias)
                setattr(parent, name, twin.train(child.training))
                packed += 1
    return packed


def _available() -> bool:
    """Whether torch has oneDNN and the two operators, which are not part of its stable API."""
    try:
        torch.ops.mkldnn._linear_pointwise.default  # noqa: B018  # looked up on access
        torch.ops.mkldnn._reorder_linear_weight.default  # noqa: B018
    except AttributeError:
        return False
    return torch.backends.mkldnn.is_available()


def _worth_packing(weight: Tensor) -> bool:
    return (
        weight.dtype is torch.float32 and weight.device.type == "cpu" and weight.numel() >= SMALLEST
    )
