"""A random two-layer decoder for soaking the engine: as small as a real forward pass can be."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backend.attention import ATTENTION
from backend.models import LoadedModel

VOCABULARY = 257
STOP = 256
CONTEXT = 256
POISON = 7  # a token whose embedding is NaN: a request that samples it must fail, and alone


def tiny_model(seed: int = 0) -> LoadedModel:
    """Return the model; it has no tokenizer, for requests come as token ids."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=STOP,
    )
    config._attn_implementation = ATTENTION
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LlamaForCausalLM(config).eval()
    network.model.embed_tokens.weight.data[POISON] = torch.nan
    return LoadedModel(
        model=network,
        tokenizer=None,
        name="random-llama-2x64",
        weights_sha256=f"seed {seed}",
        max_context=CONTEXT,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=VOCABULARY,
        stop_ids=frozenset({STOP}),
    )
