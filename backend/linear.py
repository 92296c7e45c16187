"""Linear layers over packed weights: at a decode step's few rows, reading weights is the cost.

A plain ``nn.Linear`` hands row-major weights to a general matrix library at every call, which on
few rows reaches a third of what memory gives. Here weights lie in blocks of 16 outputs for our own
kernel; without a C++ compiler, in oneDNN's layout. With our kernel a row's result does not depend
on the batch it is in, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.skinny_linear import native
from kernels.skinny_linear.naive import pack, unpack

ROWS = 16  # batch that oneDNN's layout is chosen for; one packing serves 1 to 512 rows
SMALLEST = 1 << 16  # weights below which nothing is gained


class _Weights(Protocol):
    """A weight ``[out, in]`` in some layout."""

    def plain(self) -> Tensor: ...

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor: ...


class _Plain:
    """As torch keeps it."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def plain(self) -> Tensor:
        return self._weight

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, self._weight, bias)


class Blocks:
    """In blocks of 16 outputs, for our kernel."""

    def __init__(self, weight: Tensor) -> None:
        """Pack a weight ``[out, in]``."""
        self.outputs = len(weight)
        self.packed = pack(weight)

    def plain(self) -> Tensor:
        """Return the weight, ``[out, in]``."""
        return unpack(self.packed, self.outputs)

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        return native.linear(x, self.packed, self.outputs, bias)


class _OneDnn:
    """In oneDNN's blocked layout."""

    def __init__(self, weight: Tensor) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)

    def plain(self) -> Tensor:
        return self._packed.to_dense()

    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer over a packed weight; computes what ``nn.Linear`` does, to rounding.

    Moved to another dtype or device it goes on with a plain weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack a weight ``[out, in]`` that is float32 in main memory."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._weights = _packed(weight)

    @property
    def weight(self) -> Tensor:
        """The weight, ``[out, in]``; a copy while it is packed."""
        return self._weights.plain()

    @property
    def blocks(self) -> Blocks | None:
        """The weight as our kernel reads it; None where another layout is in use."""
        return self._weights if isinstance(self._weights, Blocks) else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``; x ``[..., in]``."""
        return self._weights.apply(x, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:  # noqa: FBT001, FBT002 - torch's signature
        super()._apply(fn, recurse)
        self._weights = _packed(fn(self.weight))
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedLinear:
        twin = PackedLinear(self.weight.clone(), copy.deepcopy(self.bias, memo))
        return twin.train(self.training)

    def _save_to_state_dict(
        self,
        destination: dict[str, Any],
        prefix: str,
        keep_vars: bool,  # noqa: FBT001 - torch's signature
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


def prepare_for_cpu(model: nn.Module) -> int:
    """Pack the linear layers of a model for decoding on CPU; return how many were.

    Layers that are not float32 in main memory, or small, stay as they are. A weight shared with
    the embedding is packed in a copy.
    """
    packed = 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and _worth_packing(child.weight):
                bias = None if child.bias is None else child.bias.detach()
                twin = PackedLinear(child.weight.detach(), bias)
                setattr(parent, name, twin.train(child.training))
                packed += 1
    return packed


def _worth_packing(weight: Tensor) -> bool:
    return _packable(weight) and weight.numel() >= SMALLEST


def _packable(weight: Tensor) -> bool:
    return weight.dtype is torch.float32 and weight.device.type == "cpu"


def _packed(weight: Tensor) -> _Weights:
    if not _packable(weight):
        return _Plain(weight)
    if native.available(weight.shape[1]):
        return Blocks(weight)
    return _OneDnn(weight) if _has_one_dnn() else _Plain(weight)


def _has_one_dnn() -> bool:
    """Whether torch has oneDNN and the two operators, which are not part of its stable API."""
    try:
        torch.ops.mkldnn._linear_pointwise.default  # noqa: B018 - looked up on access
        torch.ops.mkldnn._reorder_linear_weight.default  # noqa: B018
    except AttributeError:
        return False
    return torch.backends.mkldnn.is_available()
