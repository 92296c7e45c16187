"""An attention module's twin: one projection for queries, keys and values, rotated by our kernel.

A decode step's few rows spend as long in a dozen small operators as in attention over a short
context. A module is swapped only if, on random input, its twin hands the same queries, keys,
values and scaling to attention and gives the same output, to rounding; norms on heads, gates,
interleaved rotations and the like therefore stay the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from backend.fused import FusedLinear
from backend.linear import PackedLinear
from kernels.rotary import native as rotary

INPUTS = ("q_proj", "k_proj", "v_proj")
OUTPUT = "o_proj"
PROBE = "entropic_probe"  # attention that only shows what it was asked
ALLOWED = {"scaling", "dropout", "sliding_window"}  # of attention; what else is asked, we do not do
ROWS = 5
TOLERANCE = 2e-6  # relative to the greatest number of a row


class LeanAttention(nn.Module):
    """Projections, rotation and output of the module it stands for; attention is the model's."""

    def __init__(self, module: nn.Module, scaling: float, dim: int) -> None:
        """Share the projections of ``module``, whose heads have ``dim`` numbers."""
        super().__init__()
        for name in (*INPUTS, OUTPUT):
            self.add_module(name, module.get_submodule(name))
        self.config: Any = module.config
        self.layer_idx: Any = module.layer_idx
        self.scaling, self.head_dim = scaling, dim
        layers = [module.get_submodule(name) for name in INPUTS]
        self.inputs = FusedLinear([x for x in layers if isinstance(x, PackedLinear)])
        self.heads = [width // dim for width in self.inputs.widths]

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend ``[1, N, d]`` at the angles ``[1, N, D]``; keywords go on to attention."""
        n, dim = hidden_states.shape[1], self.head_dim
        if self.inputs.holds:
            projected = self.inputs(hidden_states)
        else:
            projected = torch.cat([self._modules[name](hidden_states) for name in INPUTS], dim=-1)  # type: ignore[misc]  # modules are callable
        q, k, v = self.heads
        heads = projected.view(n, q + k + v, dim)
        cos, sin = position_embeddings
        rotary.rotate(heads, cos[0], sin[0], q + k)
        parts = heads.transpose(0, 1)[None].split(self.heads, dim=1)
        attend = AttentionInterface()[self.config._attn_implementation]
        out, weights = attend(self, *parts, attention_mask, scaling=self.scaling, **kwargs)
        return self.get_submodule(OUTPUT)(out.reshape(1, n, -1)), weights


def lean_attention(model: nn.Module) -> int:
    """Swap a model's attention modules for twins on CPU; return how many were.

    After :func:`backend.linear.prepare_for_cpu`, over whose packed layers the twins work.
    """
    swapped = 0
    generator = torch.Generator().manual_seed(0)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            twin = _twin(child, generator)
            if twin is not None:
                setattr(parent, name, twin.train(child.training))
                swapped += 1
    return swapped


def hooked(module: nn.Module) -> bool:
    """Whether somebody listens to a module."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))


@dataclass(slots=True)
class Seen:
    """What attention was asked by a module under test."""

    tensors: list[Tensor] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)


def _probe(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    seen: Seen = kwargs.pop("seen")
    seen.tensors = [query.clone(), key.clone(), value.clone()]
    seen.asked = kwargs
    return query.transpose(1, 2), None


AttentionInterface.register(PROBE, _probe)


@torch.no_grad()
def _twin(module: nn.Module, generator: torch.Generator) -> LeanAttention | None:
    """Return a twin that computes what ``module`` does; None if there is none."""
    parts, config = module._modules, getattr(module, "config", None)
    if set(parts) != {*INPUTS, OUTPUT} or config is None or hooked(module) or module.training:
        return None
    layers = [module.get_submodule(name) for name in INPUTS]
    dim = getattr(module, "head_dim", None)
    if not isinstance(dim, int) or not FusedLinear.possible(layers) or not rotary.available(dim):
        return None
    if any(int(layer.out_features) % dim for layer in layers):  # type: ignore[arg-type]  # packed
        return None
    width = int(layers[0].in_features)  # type: ignore[arg-type]
    x = torch.randn(1, ROWS, width, generator=generator)
    angles = torch.rand(1, ROWS, dim // 2, generator=generator).repeat(1, 1, 2) * 6.0
    with probing(config):
        expected, wanted = _ask(module, x, angles)
        if wanted is None or set(wanted.asked) - ALLOWED or wanted.asked.get("dropout", 0.0) != 0.0:
            return None
        twin = LeanAttention(module, float(wanted.asked["scaling"]), dim)
        made, got = _ask(twin, x, angles)
    if expected is None or made is None or got is None:
        return None
    pairs = zip([expected, *wanted.tensors], [made, *got.tensors], strict=True)
    return twin if all(close(a, b) for a, b in pairs) else None


class probing:  # noqa: N801 - reads as a verb: with probing(config)
    """Let a configuration name the probe as its attention, for a while."""

    def __init__(self, config: Any) -> None:
        self._config, self._own = config, config._attn_implementation

    def __enter__(self) -> None:
        self._config._attn_implementation = PROBE

    def __exit__(self, *_: object) -> None:
        self._config._attn_implementation = self._own


def _ask(module: nn.Module, x: Tensor, angles: Tensor) -> tuple[Tensor | None, Seen | None]:
    """Return a module's output over the probe, and what the probe saw; None if it refused."""
    seen = Seen()
    try:
        out = module(
            x.clone(),
            position_embeddings=(angles.cos(), angles.sin()),
            attention_mask=None,
            seen=seen,
        )
    except (RuntimeError, TypeError, ValueError, KeyError):  # it wants another input
        return None, None
    return (out[0], seen) if seen.tensors else (None, None)


def close(expected: Tensor, made: Tensor) -> bool:
    """Whether no number is off by more than rounding of the greatest of its row."""
    if expected.shape != made.shape or expected.dtype is not made.dtype:
        return False
    greatest = expected.abs().amax(-1, keepdim=True)
    return bool(((made - expected).abs() <= TOLERANCE * greatest).all())
