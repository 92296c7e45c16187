"""Greedy decoding on the device against transformers' own forward pass over the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.gpu.decoder import Decoder
from backend.gpu.weights import weights_of
from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.runners import batch_of, make_runner, random_prompts

ROWS, PROMPT, STEPS = 4, 200, 48
NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.25}  # logits: closer than this is a tie


def against_transformers(place: Place, record: Record) -> None:
    """Decode greedily, then ask transformers about each token; a tie in its logits is no error."""
    if place.model is not None and not place.dry:
        folder = place.model
        _compare(
            place, record, lambda dtype: transformers_model(folder, dtype, place), "smollm2-135m"
        )
    else:
        _compare(place, record, lambda dtype: _random(dtype, place), "random llama")


def _compare(place: Place, record: Record, make: Callable[[torch.dtype], Any], name: str) -> None:
    rows, prompt, steps = (2, 20, 6) if place.dry else (ROWS, PROMPT, STEPS)
    for dtype in (torch.float32, torch.bfloat16) if place.cuda else (torch.float32,):
        model = make(dtype)
        decoder = Decoder(weights_of(model), place.twins())
        asked = batch_of(rows, prompt, steps, temperature=0.0)
        made = make_runner(
            place, asked, None, capacity=prompt + steps, steps=steps, decoder=decoder, prompts=True
        )
        made.run(steps - 1, graph=place.cuda)
        prompts = random_prompts(decoder.weights.shape.vocabulary, [prompt] * rows)
        given = torch.tensor(prompts, device=place.device)
        pairs = zip(given, made.tokens, strict=True)
        margin = torch.cat([margins(model, asked_for, drawn) for asked_for, drawn in pairs])
        record.add(
            "greedy",
            model=name,
            dtype=str(dtype),
            tokens=margin.numel(),
            equal=int((margin == 0).sum()),
            largest_margin=float(margin.max()),
            bound=NEAR[dtype],
            passed=bool((margin <= NEAR[dtype]).all()),
        )


@torch.no_grad()
def margins(model: Any, prompt: Tensor, tokens: Tensor) -> Tensor:
    """Return how far below transformers' best logit each of our tokens is, ``[steps]``."""
    ids = torch.cat([prompt, tokens[:-1]])[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
    return logits.amax(-1) - logits.gather(1, tokens[:, None])[:, 0]


def transformers_model(folder: Path, dtype: torch.dtype, place: Place) -> Any:
    """Return transformers' own model on the device, with its own attention."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(place.device).eval()


def _random(dtype: torch.dtype, place: Place) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=257,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: Any = LlamaForCausalLM(config)
    return made.to(place.device, dtype).eval()
