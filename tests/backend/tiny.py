"""A two-layer random Llama with bytes for tokens, and small engines around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from backend.attention import ATTENTION
from backend.engine import Engine, Submission
from backend.executor import Recorder
from backend.models import LoadedModel
from backend.sparse import SparseAttention
from controllers.coverage import FixedCoverage
from controllers.presets import Preset, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import Sink
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

STOP = 256  # the only token that is not a byte
VOCAB = 257
CONTEXT = 512
STEP_LAW = StepLaw(
    base_s=1e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-7,
    per_prompt_token_s=1e-5,
    per_prompt_square_s=1e-9,
)
EVEN_IF_SHORT = SparseAttention(min_pages=1)  # tiny contexts, where pruning does not pay
ROOMY = EngineLimits(max_seqs=8, token_budget=512, n_pages=128, max_context=CONTEXT)


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """Text to bytes and back; no chat format."""

    chat_template: str | None = None
    eos_token_id: int = STOP

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(input_ids=list(text.encode()))

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(token for token in tokens if token < STOP).decode("latin-1")


def tiny_model(seed: int = 0) -> LoadedModel:
    """Make the model; its rows have entropies from .5 to 4.5 nats at T = 1."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=STOP,
        attn_implementation=ATTENTION,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config).eval()
    return LoadedModel(
        model=network,
        tokenizer=ByteTokenizer(),
        name="tiny",
        weights_sha256="0" * 64,
        max_context=CONTEXT,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=VOCAB,
        stop_ids=frozenset({STOP}),
    )


class Tampered(nn.Module):
    """A model whose logits are changed on the way out; everything else is the model's own."""

    def __init__(self, inner: nn.Module, change: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = inner
        self._change = change

    def forward(self, *, step: Any, **inputs: Any) -> Any:
        """Run the model, then ``change(step, logits [1, S, n])``."""
        out = self.inner(step=step, **inputs)
        out.logits = self._change(step, out.logits)
        return out


def tampered(loaded: LoadedModel, change: Callable[[Any, Tensor], Tensor]) -> LoadedModel:
    return replace(loaded, model=Tampered(loaded.model, change))


def prompt_of(n: int, seed: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, STOP, n).tolist())


def submission(
    request_id: int,
    prompt_tokens: int = 20,
    max_tokens: int = 12,
    *,
    at_s: float = 0.0,
    cancel_after_tokens: int | None = None,
    **fields: Any,
) -> Submission:
    request = Request(
        request_id=request_id,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        seed=1000 + request_id,
        **fields,
    )
    return Submission(
        request=request,
        prompt=prompt_of(prompt_tokens, request_id),
        at_s=at_s,
        cancel_after_tokens=cancel_after_tokens,
    )


def sparse(coverage: float, *, name: str = "baseline") -> Preset:
    """Return a preset of one coverage, in force from the first decode row and never probed."""
    law = FixedCoverage(coverage=coverage)
    return replace(get_preset(name), coverage=law, sparse_min_context=1, probe_every=0)


def engine(
    loaded: LoadedModel,
    preset: Preset | str = "baseline",
    limits: EngineLimits = ROOMY,
    *,
    recorder: Recorder | None = None,
    sink: Sink | None = None,
) -> Engine:
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    return Engine(
        loaded, chosen, limits, STEP_LAW, recorder=recorder, sink=sink, sparse=EVEN_IF_SHORT
    )


def tokens_of(made: Engine, submissions: Sequence[Submission]) -> dict[int, tuple[int, ...]]:
    """Serve, and return the tokens of each request."""
    return {g.request.request_id: g.tokens for g in made.run(submissions)}
