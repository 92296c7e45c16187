"""Weights of a decoder on one device: taken from a transformers model, or drawn at random."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.errors import UnsupportedModel
from backend.gpu.shapes import DecoderShape

FAMILIES = ("llama", "qwen3")
SPREAD = 0.02  # standard deviation of random weights


class LayerWeights(NamedTuple):
    """One layer; matrices are ``[out, in]``."""

    input_norm: Tensor  # [d]
    qkv: Tensor  # [(H + 2 Hkv) D, d]
    head_norms: tuple[Tensor, Tensor] | None  # of queries and keys, [D] each
    out: Tensor  # [d, H D]
    middle_norm: Tensor  # [d]
    gate_up: Tensor  # [2 f, d]
    down: Tensor  # [d, f]


class Weights(NamedTuple):
    """A decoder's weights, and its rotary frequencies."""

    shape: DecoderShape
    embedding: Tensor  # [n, d]
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor  # [d]
    head: Tensor  # [n, d]; the embedding where tied
    inverse_frequency: Tensor  # float32 [D / 2]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """What they are stored in."""
        return self.embedding.dtype


def random_weights(
    shape: DecoderShape, *, dtype: torch.dtype, device: torch.device | str, seed: int = 0
) -> Weights:
    """Draw weights of ``shape``, each layer its own: good for speed and checks, not for text."""
    device = torch.device(device)
    generator = torch.Generator(device).manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        made = torch.empty(rows, columns, dtype=dtype, device=device)
        return made.normal_(0.0, SPREAD, generator=generator)

    def ones(size: int) -> Tensor:
        return torch.ones(size, dtype=dtype, device=device)

    d, dim, f = shape.hidden, shape.head_dim, shape.intermediate
    layers = tuple(
        LayerWeights(
            input_norm=ones(d),
            qkv=matrix((shape.heads + 2 * shape.kv_heads) * dim, d),
            head_norms=(ones(dim), ones(dim)) if shape.head_norms else None,
            out=matrix(d, shape.heads * dim),
            middle_norm=ones(d),
            gate_up=matrix(2 * f, d),
            down=matrix(d, f),
        )
        for _ in range(shape.layers)
    )
    embedding = matrix(shape.vocabulary, d)
    head = embedding if shape.tied else matrix(shape.vocabulary, d)
    power = torch.arange(0, dim, 2, dtype=torch.float64) / dim
    frequency = (shape.rope_theta**-power).float().to(device)
    return Weights(shape, embedding, layers, ones(d), head, frequency)


def weights_of(
    model: Any, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Weights:
    """Take the weights of a transformers Llama or Qwen3 that nothing has repacked for CPU.

    Raises:
        UnsupportedModel: another family, a bias, scaled rotations, or a sliding window.
    """
    config = model.config.get_text_config()
    held = dict(model.state_dict())
    _check(config, held)
    place = {"dtype": dtype or model.dtype, "device": device or model.device}

    def take(*names: str) -> Tensor:
        return torch.cat([held[name] for name in names]).to(**place).contiguous()

    def layer(index: int) -> LayerWeights:
        base = f"model.layers.{index}."
        attention, mlp = base + "self_attn.", base + "mlp."
        names = [f"{attention}{name}_norm.weight" for name in "qk"]
        return LayerWeights(
            input_norm=take(base + "input_layernorm.weight"),
            qkv=take(*(f"{attention}{name}_proj.weight" for name in "qkv")),
            head_norms=(take(names[0]), take(names[1])) if names[0] in held else None,
            out=take(attention + "o_proj.weight"),
            middle_norm=take(base + "post_attention_layernorm.weight"),
            gate_up=take(mlp + "gate_proj.weight", mlp + "up_proj.weight"),
            down=take(mlp + "down_proj.weight"),
        )

    layers = tuple(layer(index) for index in range(config.num_hidden_layers))
    embedding = take("model.embed_tokens.weight")
    shape = _shape(config, head_norms=layers[0].head_norms is not None)
    return Weights(
        shape,
        embedding,
        layers,
        take("model.norm.weight"),
        embedding if shape.tied else take("lm_head.weight"),
        model.model.rotary_emb.inv_freq.float().to(place["device"]),
    )


def _shape(config: Any, *, head_norms: bool) -> DecoderShape:
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return DecoderShape(
        name=str(config.name_or_path or config.model_type),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=dim,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        rope_theta=float((config.rope_parameters or {}).get("rope_theta", 1e4)),
        eps=config.rms_norm_eps,
        tied=bool(config.tie_word_embeddings),
        head_norms=head_norms,
    )


def _check(config: Any, held: dict[str, Tensor]) -> None:
    """Raise for what the runner's forward pass does not compute."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise UnsupportedModel(f"model_type: the GPU runner serves {FAMILIES}; got {kind!r}")
    biased = next((name for name in held if name.endswith(".bias")), None)
    if biased is not None:
        raise UnsupportedModel(f"weights: the GPU runner adds no bias; got {biased}")
    if config.hidden_act != "silu":
        raise UnsupportedModel(f"hidden_act must be 'silu' on GPU; got {config.hidden_act!r}")
    rotation = (config.rope_parameters or {}).get("rope_type", "default")
    if rotation not in ("default", "llama3", "linear"):
        raise UnsupportedModel(f"rope_type must have constant frequencies; got {rotation!r}")
    if getattr(config, "use_sliding_window", False):
        raise UnsupportedModel("use_sliding_window must be false on GPU; got True")
