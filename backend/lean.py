"""Small modules of a decoder swapped for twins over our kernels, where these compute the same.

A decode step normalises and gates a few rows at a time; what that costs in torch is a dozen small
operators and their temporaries. A module is swapped only if, on random input, its twin gives its
output to rounding, so a norm or a gate of another kind stays as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from backend.linear import Blocks, PackedLinear
from kernels.gated_silu import native as gate_kernel
from kernels.rms_norm import native as norm_kernel
from kernels.skinny_linear.native import gated_linear

TOLERANCE = 2e-6  # relative
SCALES = (1e-3, 1.0, 30.0)  # of random input; at the least of them eps weighs in
ROWS = 3
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class LeanNorm(nn.Module):
    """RMS normalisation with the weight of the module it stands for."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        """Share a weight ``[d]``."""
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return ``w x / sqrt(mean(x^2) + eps)``; x ``[..., d]``."""
        return norm_kernel.rms_norm(hidden_states, self.weight, self.eps)


class LeanMLP(nn.Module):
    """A gated MLP with SiLU, over the projections of the module it stands for."""

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module) -> None:
        """Share three projections."""
        super().__init__()
        self.gate_proj = gate_proj
        self.up_proj = up_proj
        self.down_proj = down_proj

    def forward(self, x: Tensor) -> Tensor:
        """Return ``down(silu(gate(x)) * up(x))``; x ``[..., d]``."""
        gate, up = _blocks(self.gate_proj), _blocks(self.up_proj)
        if gate is None or up is None:
            return self.down_proj(gate_kernel.gated_silu(self.gate_proj(x), self.up_proj(x)))
        return self.down_proj(gated_linear(x, gate.packed, up.packed, gate.outputs))


def _blocks(layer: nn.Module) -> Blocks | None:
    return layer.blocks if isinstance(layer, PackedLinear) and layer.bias is None else None


def lean(model: nn.Module) -> int:
    """Swap a model's norms and gated MLPs for twins on CPU; return how many were.

    Modules that are not float32 in main memory, carry hooks, or are being trained stay. Without
    compiled kernels nothing is swapped, for nothing would be gained.
    """
    swapped = 0
    generator = torch.Generator().manual_seed(0)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            twin = next((t for t in _twins(child) if _same(child, t, generator)), None)
            if twin is not None:
                setattr(parent, name, twin.train(child.training))
                swapped += 1
    return swapped


def _twins(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what might compute the same as ``module``; nothing if it cannot be told."""
    parts = module._modules
    if not _plain(module):
        return
    if type(module).__name__.endswith("RMSNorm") and set(module._parameters) == {"weight"}:
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = module._parameters["weight"]
        if weight is None or weight.ndim != 1 or not isinstance(eps, float) or parts:
            return
        if norm_kernel.available():
            yield LeanNorm(weight, eps)
    elif set(parts) == {*PROJECTIONS, "act_fn"} and gate_kernel.available():
        yield LeanMLP(*(module.get_submodule(name) for name in PROJECTIONS))


def _plain(module: nn.Module) -> bool:
    """Whether a module maps one tensor to one tensor, without hooks or state of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    if any(hooks) or module.training or module._buffers:
        return False
    return len(inspect.signature(module.forward).parameters) == 1


@torch.no_grad()
def _same(module: nn.Module, twin: nn.Module, generator: torch.Generator) -> bool:
    """Whether both give the same numbers for the same random rows, to rounding."""
    if not all(p.dtype is torch.float32 and p.device.type == "cpu" for p in module.parameters()):
        return False
    width = _inputs(module)
    for scale in SCALES:
        x = torch.randn(1, ROWS, width, generator=generator) * scale
        try:
            expected: Any = module(x.clone())
        except (RuntimeError, TypeError, ValueError):  # it wants another input
            return False
        made = twin(x)
        if not isinstance(expected, Tensor) or made.shape != expected.shape:
            return False
        if made.dtype is not expected.dtype or not _close(made, expected):
            return False
    return True


def _inputs(module: nn.Module) -> int:
    if "weight" in module._parameters:
        return module.get_parameter("weight").numel()
    first: Any = module.get_submodule("gate_proj")
    return int(first.in_features)


def _close(made: Tensor, expected: Tensor) -> bool:
    """Whether no number is off by more than rounding of the greatest of its row."""
    greatest = expected.abs().amax(-1, keepdim=True)
    return bool(((made - expected).abs() <= TOLERANCE * greatest).all())
