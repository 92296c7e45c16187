"""What a decoder asks of our attention, found before its weights are read.

The network is built without storage (torch's ``meta`` device) and run once with a probe in place
of attention. What the probe is given tells whether paged attention can serve the model exactly;
whatever it cannot serve is refused, and named.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM

from backend.errors import UnsupportedModel

PROBE = "entropic-probe"
TOKENS = 3  # a few, so that the token axis is told from axes of size one


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The shape of a decoder we can serve; ``max_context`` is the longest exact request."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_context: int


@dataclass(frozen=True, slots=True)
class Call:
    """What one attention layer was given: shapes ``[1, heads, tokens, D]`` and options."""

    layer: int
    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    causal: bool
    masked: bool
    window: int | None
    softcap: float | None
    tensors: tuple[str, ...]  # names of further tensors, all of which would have to be honoured


def inspect_config(config: Any) -> Architecture:
    """Return the architecture of a Hugging Face config; no weight is read.

    Raises:
        UnsupportedModel: one line that names what our attention cannot serve exactly.
    """
    kind = config.model_type
    _check_config(kind, config)
    config = copy.deepcopy(config)
    config.get_text_config().pad_token_id = None  # else some look for padding among the ids
    try:
        with torch.device("meta"):
            network: Any = AutoModelForCausalLM.from_config(
                config, attn_implementation=PROBE, dtype=torch.bfloat16
            ).eval()
        _check_modules(kind, network)
        calls = _run(kind, network)
    except UnsupportedModel:
        raise
    except Exception as error:  # a foreign forward may raise anything
        raise refusal(kind, _untraced(error)) from None
    text = config.get_text_config()
    return _shape(kind, calls, text.num_hidden_layers, list(_context_limits(text)))


def refusal(kind: str, reason: str) -> UnsupportedModel:
    """Return the error for a model type, with its reason."""
    return UnsupportedModel(f"model_type {kind!r} is not supported: {reason}")


def _untraced(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args == (PROBE,):
        return "it chooses its attention from a table of its own"
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"it cannot be traced with our attention ({reason})"


def _probe(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: list[Call] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Note a call in ``step``; a model that does not hand ``step`` on leaves no note."""
    del position_ids  # queries and keys are rotated already
    if step is not None:
        call = Call(
            layer=module.layer_idx,
            query=tuple(query.shape),
            key=tuple(key.shape),
            value=tuple(value.shape),
            causal=bool(getattr(module, "is_causal", True) if is_causal is None else is_causal),
            masked=attention_mask is not None,
            window=sliding_window,
            softcap=softcap,
            tensors=tuple(name for name, x in options.items() if isinstance(x, Tensor)),
        )
        step.append(call)
    out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    return out, None


# No mask function belongs to the probe: transformers then makes no mask, and a mask that arrives
# is the model's own.
AttentionInterface.register(PROBE, _probe)


def _check_config(kind: str, config: Any) -> None:
    text = config.get_text_config()
    if config.is_encoder_decoder:
        raise refusal(kind, "it is an encoder-decoder; we serve decoders")
    if getattr(text, "kv_lora_rank", None) is not None:
        raise refusal(kind, "multi-head latent attention keeps no K and V per head")


def _check_modules(kind: str, network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv1d, nn.RNNBase)):
            raise refusal(kind, f"{name} mixes tokens outside attention (state-space or recurrent)")
    if "position_ids" not in inspect.signature(network.forward).parameters:
        raise refusal(kind, "its forward takes no position_ids")


def _run(kind: str, network: Any) -> list[Call]:
    calls: list[Call] = []
    with torch.no_grad():
        out = network(
            input_ids=torch.zeros(1, TOKENS, dtype=torch.long, device="meta"),
            use_cache=False,
            logits_to_keep=torch.tensor([TOKENS - 1], device="meta"),
            step=calls,
        )
    if out.logits.shape[:2] != (1, 1):
        raise refusal(kind, "its forward does not honour logits_to_keep")
    return calls


def _shape(kind: str, calls: Sequence[Call], layers: int, limits: list[int]) -> Architecture:
    found = sorted(call.layer for call in calls)
    if found != list(range(layers)):
        raise refusal(
            kind, f"{len(calls)} attention calls reach us from {layers} layers, not one from each"
        )
    for call in calls:
        reason = _objection(call)
        if reason is not None:
            raise refusal(kind, f"layer {call.layer} {reason}")
    shapes = {(call.query, call.key) for call in calls}
    if len(shapes) != 1:
        raise refusal(kind, "its layers differ in heads or head size")
    query, key = shapes.pop()
    if query[1] % key[1]:
        raise refusal(kind, f"{query[1]} query heads do not divide among {key[1]} KV heads")
    windows = [call.window for call in calls if call.window is not None]
    return Architecture(
        layers=layers,
        heads=query[1],
        kv_heads=key[1],
        head_dim=query[3],
        max_context=min([*limits, *windows]),
    )


def _objection(call: Call) -> str | None:
    """Say why one layer's attention is not ours, or None."""
    if not call.causal:
        return "is not causal"
    if call.masked:
        return "brings a mask or bias of its own"
    if call.softcap is not None:
        return f"caps its attention logits (softcap={call.softcap})"
    if call.tensors:
        return f"hands attention {', '.join(call.tensors)} (learned sinks or a bias)"
    if call.key != call.value or call.query[3] != call.key[3]:
        return f"has head sizes {call.query[3]}, {call.key[3]}, {call.value[3]} for Q, K, V"
    return None


def _context_limits(text: Any) -> Iterator[int]:
    """Yield every length up to which a request is exact.

    Within a sliding window, or one attention chunk, every earlier token is seen. Beyond its
    original length ``longrope`` rotates a whole step by its longest request, so that requests
    would change each other.
    """
    limit = getattr(text, "max_position_embeddings", None)
    if limit is None:
        raise refusal(text.model_type, "its config has no max_position_embeddings")
    yield limit
    for name in ("sliding_window", "attention_chunk_size"):
        value = getattr(text, name, None)
        if value is not None:
            yield value
    rope = getattr(text, "rope_parameters", None) or {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") == "longrope":
            yield parameters["original_max_position_embeddings"]
