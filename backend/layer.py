"""A decoder layer's twin: for one-token rows the whole layer, attention included, is one call.

Between two products a decode step does little, but each little operator costs a call, a temporary
and a wait for the other threads. A layer whose modules have twins of ours is swapped only if, on
random input, both its ways of computing give its output to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from backend.attention import ATTENTION, StepInputs
from backend.fused import FusedLinear
from backend.lean import PROJECTIONS, LeanMLP, LeanNorm
from backend.lean_attention import OUTPUT, LeanAttention, Seen, close, hooked, probing
from backend.linear import Blocks, PackedLinear
from kernels.decoder_layer.native import MOST_ROWS, Kernel, Layer, available
from kernels.decoder_layer.shapes import Choice, LayerPages, Rows, Shape, Weights
from kernels.native.library import native_kind

ATTEND, MLP = "self_attn", "mlp"
FIRST, SECOND = "input_layernorm", "post_attention_layernorm"
ROWS = 5  # of random input
SCORERS = ("mean_std", "quest")  # that the kernel computes
PAGE_TOKENS = 16  # that the kernel is compiled for at load; another is when its engine is made


class LeanLayer(nn.Module):
    """A decoder layer over the modules of the one it stands for."""

    def __init__(self, module: nn.Module, shape: Shape, kernels: dict[int, Kernel]) -> None:
        """Share the modules of ``module``, and with other layers the kernels by page size."""
        super().__init__()
        for name, value in vars(module).items():
            if not name.startswith("_") and name != "training":
                setattr(self, name, value)  # a model may ask its layers for their kind
        for name, part in module.named_children():
            self.add_module(name, part)
        self._following: FusedLinear | None = None
        self._shape, self._kernels = shape, kernels
        self._held: tuple[Any, ...] = ()  # what ``_bound`` was made from
        self._bound: Layer | None = None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the layer's output for ``[1, N, width]`` at the angles ``[1, N, D]``."""
        assert position_embeddings is not None
        step = kwargs.get("step")
        if isinstance(step, StepInputs) and step.decode is not None and not step.chunks:
            layer = self.bound(step.cache.page_tokens, hidden_states)
            if layer is not None and self._alone(step):
                return self._whole(layer, hidden_states, position_embeddings, step)
            if layer is not None:
                return self.around(
                    layer, hidden_states, attention_mask, position_embeddings, kwargs
                )
        parts: dict[str, Any] = self._modules
        out, _ = parts[ATTEND](
            hidden_states=parts[FIRST](hidden_states),
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **kwargs,
        )
        hidden_states = hidden_states + out
        return hidden_states + parts[MLP](parts[SECOND](hidden_states))

    def follow(self, inputs: FusedLinear) -> None:
        """Name what is read after this layer: the inputs of the next."""
        self._following, self._held = inputs, ()

    def warm(self, page_tokens: int) -> None:
        """Compile the kernel for pages of this size, if it is not yet there."""
        self._kernel(page_tokens)

    def bound(self, page_tokens: int, hidden_states: Tensor) -> Layer | None:
        """Return the kernel over this layer's weights; None where it does not apply."""
        if hidden_states.shape[0] != 1 or hidden_states.shape[1] > MOST_ROWS:
            return None
        if not native_kind(hidden_states):
            return None
        held = (page_tokens, *_identity(self))
        if self._held != held:
            weights = weights_of(self)
            kernel = None if weights is None else self._kernel(page_tokens)
            self._bound, self._held = None, held
            if weights is not None and kernel is not None:
                following = None if self._following is None else self._following.packed
                self._bound = Layer(kernel, weights, following)
        return self._bound

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": None, "_held": ()}  # addresses are not to be copied

    def _kernel(self, page_tokens: int) -> Kernel | None:
        if page_tokens not in self._kernels and available(self._shape, page_tokens):
            self._kernels[page_tokens] = Kernel(self._shape, page_tokens)
        return self._kernels.get(page_tokens)

    def _prunes(self, step: StepInputs) -> bool:
        """Whether this layer chooses pages for some row."""
        attend: Any = self._modules[ATTEND]
        rows = step.decode
        assert rows is not None
        return rows.pruned is not None and attend.layer_idx >= step.sparse.dense_layers

    def _alone(self, step: StepInputs) -> bool:
        """Whether attention is ours, the kernel can do it, and nobody wants to know more of it."""
        attend: Any = self._modules[ATTEND]
        cache, sparse = step.cache, step.sparse
        if cache.codes or step.mass is not None or cache.lag is not None:
            return False
        if step.observer is not None or step.witness is not None:
            return False
        if self._prunes(step) and (sparse.scorer not in SCORERS or sparse.block_pages > 1):
            return False
        ours = attend.config._attn_implementation == ATTENTION
        return ours and native_kind(*cache.layer_pages(attend.layer_idx))

    def _whole(
        self, layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor], step: StepInputs
    ) -> Tensor:
        attend: Any = self._modules[ATTEND]
        rows, heads, prunes = step.decode, self._shape.kv_heads, self._prunes(step)
        assert rows is not None
        step.page_units_dense += heads * rows.units
        step.page_units_read += heads * rows.units
        laid = step.laid.get((layer.kernel, prunes))
        if laid is None:
            cos, sin = (angle[0].contiguous() for angle in angles)
            laid = step.laid[layer.kernel, prunes] = layer.kernel.lay(
                Rows(
                    cos=cos,
                    sin=sin,
                    slots=step.slots,
                    table=rows.table,
                    n_pages=rows.n_pages,
                    tails=rows.tails,
                    scaling=attend.scaling,
                    choice=Choice(coverage=rows.coverage, pins=step.pins) if prunes else None,
                )
            )
        k, v = step.cache.layer_pages(attend.layer_idx)
        pages = LayerPages(k=k, v=v, stats=step.cache.stats[attend.layer_idx])
        out = layer(x[0].contiguous(), laid, pages)[None]
        if rows.pruned is not None and prunes:
            step.page_units_read -= heads * rows.pruned.units
            step.pages_scored += heads * rows.pruned.units
            kept = laid.lists.kept  # the next layer writes it anew
            step.kept.append(kept.clone() if rows.all_pruned else kept[rows.pruned.at])
        return out

    def around(
        self,
        layer: Layer,
        x: Tensor,
        mask: Tensor | None,
        angles: tuple[Tensor, Tensor],
        kwargs: dict[str, Any],
    ) -> Tensor:
        """Compute the layer around whatever attention is configured."""
        module: Any = self._modules[ATTEND]
        shape, rows = self._shape, x[0].contiguous()
        heads = layer.before(rows, *(angle[0].contiguous() for angle in angles))
        split = [shape.queries, shape.kv_heads, shape.kv_heads]
        parts = heads.transpose(0, 1)[None].split(split, dim=1)
        attend = AttentionInterface()[module.config._attn_implementation]
        out, _ = attend(module, *parts, mask, scaling=module.scaling, **kwargs)
        return layer.after(rows, out.reshape(len(rows), -1).contiguous())[None]


def lean_layers(model: nn.Module) -> int:
    """Swap a model's decoder layers for twins on CPU; return how many were.

    After :func:`backend.lean.lean` and :func:`backend.lean_attention.lean_attention`, over whose
    twins these work.
    """
    kernels: dict[Shape, dict[int, Kernel]] = {}
    generator = torch.Generator().manual_seed(0)
    swapped = 0
    for parent in list(model.modules()):
        previous: LeanLayer | None = None
        for name, child in list(parent.named_children()):
            twin = _twin(child, kernels, generator)
            if twin is not None:
                setattr(parent, name, twin.train(child.training))
                swapped += 1
                if previous is not None:
                    previous.follow(_attention(twin).inputs)
            previous = twin
    return swapped


def weights_of(layer: nn.Module) -> Weights | None:
    """Return a layer's weights as the kernel takes them; None where it cannot."""
    parts = layer._modules
    first, attend, second, mlp = (parts.get(n) for n in (FIRST, ATTEND, SECOND, MLP))
    if not (isinstance(first, LeanNorm) and isinstance(second, LeanNorm)):
        return None
    if not (isinstance(attend, LeanAttention) and isinstance(mlp, LeanMLP)):
        return None
    output = attend._modules[OUTPUT]
    packed = [_blocks(part) for part in (output, *mlp._modules.values())]
    if not attend.inputs.holds or any(blocks is None for blocks in packed):
        return None
    if any(part.bias is not None for part in mlp._modules.values()):  # type: ignore[union-attr]  # packed, as was found
        return None
    o, gate, up, down = (blocks.packed for blocks in packed if blocks is not None)
    bias: Any = output.bias  # type: ignore[union-attr]  # likewise
    return Weights(
        first=first.weight,
        inputs=attend.inputs.packed,
        inputs_bias=attend.inputs.bias,
        output=o,
        output_bias=bias,
        second=second.weight,
        gate=gate,
        up=up,
        down=down,
        first_eps=first.eps,
        second_eps=second.eps,
    )


def _blocks(part: nn.Module | None) -> Blocks | None:
    return part.blocks if isinstance(part, PackedLinear) else None


def _attention(layer: nn.Module) -> LeanAttention:
    attend = layer._modules[ATTEND]
    assert isinstance(attend, LeanAttention)
    return attend


def _identity(layer: nn.Module) -> tuple[Any, ...]:
    """Return what a layer's weights are told by: another weight is another object or place."""
    parts: dict[str, Any] = layer._modules
    mlp: dict[str, Any] = parts[MLP]._modules
    attend = parts[ATTEND]
    packed = (attend._modules[OUTPUT], *(mlp[name] for name in PROJECTIONS))
    norms = (parts[FIRST].weight.data_ptr(), parts[SECOND].weight.data_ptr())
    return (*norms, attend.inputs.holds, *(_blocks(part) for part in packed))


@torch.no_grad()
def _twin(
    module: nn.Module, kernels: dict[Shape, dict[int, Kernel]], generator: torch.Generator
) -> LeanLayer | None:
    """Return a twin that computes what ``module`` does; None if there is none."""
    named = set(module._modules) == {FIRST, ATTEND, SECOND, MLP}
    if not named or hooked(module) or module.training or module._parameters or module._buffers:
        return None
    weights = weights_of(module)
    if weights is None:
        return None
    shape = _shape(module, weights)
    if not available(shape, PAGE_TOKENS):
        return None
    twin = LeanLayer(module, shape, kernels.setdefault(shape, {}))
    x = torch.randn(1, ROWS, shape.width, generator=generator)
    layer = twin.bound(PAGE_TOKENS, x)
    angles = torch.rand(1, ROWS, shape.dim // 2, generator=generator).repeat(1, 1, 2) * 6.0
    turns = angles.cos(), angles.sin()
    with probing(_attention(module).config):
        try:
            expected = module(
                x.clone(), attention_mask=None, position_embeddings=turns, seen=Seen()
            )
        except (RuntimeError, TypeError, ValueError, KeyError):  # it wants another input
            return None
        if layer is None or not isinstance(expected, Tensor):
            return None
        plain = twin(x, position_embeddings=turns, seen=Seen())
        quick = twin.around(layer, x, None, turns, {"seen": Seen()})
    return twin if close(expected, plain) and close(expected, quick) else None


def _shape(module: nn.Module, weights: Weights) -> Shape:
    attend, mlp = _attention(module), module.get_submodule(MLP)
    queries, keys, _ = attend.heads
    return Shape(
        width=len(weights.first),
        inner=int(mlp.get_submodule("gate_proj").out_features),  # type: ignore[arg-type]  # packed
        kv_heads=keys,
        group=queries // keys,
        dim=attend.head_dim,
    )
