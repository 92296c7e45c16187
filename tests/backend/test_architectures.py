"""Decoders of several families, served under pressure, give what transformers gives; others are
refused from their config alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from backend.architecture import inspect_config
from backend.engine import Engine, Submission
from backend.errors import UnsupportedModel
from backend.models import load
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request
from tests.backend.tiny import STEP_LAW, STOP, VOCAB, engine, prompt_of, submission

POSITIONS = 160
WINDOW = 96
TIGHT = EngineLimits(max_seqs=4, token_budget=12, n_pages=7, max_context=WINDOW)
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": STOP,
    "pad_token_id": STOP,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},  # normalised queries and keys
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"num_local_experts": 4},
    "gemma": {"head_dim": 20, "num_key_value_heads": 1},
    "gemma3_text": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
        "tie_word_embeddings": False,
    },
    "gpt2": {},  # learned positions, tied embeddings
    "phi3": {},
}


def save(kind: str, folder: Path, seed: int = 0, **fields: Any) -> Path:
    """Write a random checkpoint of a family, with a tokenizer of one word per id."""
    config = AutoConfig.for_model(kind, **{**SMALL, **fields})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    network.save_pretrained(folder)
    words = Tokenizer(WordLevel({str(i): i for i in range(VOCAB)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(STOP)).save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.slow) if kind in ("mixtral", "phi3") else kind
        for kind in FAMILIES
    ],
)
def checkpoint(request, tmp_path_factory) -> Path:
    return save(request.param, tmp_path_factory.mktemp(request.param), **FAMILIES[request.param])


def stock_tokens(folder: Path, prompts: list[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """Generate greedily with transformers and its own attention, one prompt at a time."""
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = network.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n
        )
        found.append(tuple(out[0, len(prompt) :].tolist()))
    return found


def events(made: Engine) -> Counter[str]:
    """Count, while an engine runs, what makes a step unlike generation of one request."""
    seen: Counter[str] = Counter()

    def on_step(plan: Plan, _: Result) -> None:
        decodes = sum(row.samples and row.n_tokens == 1 for row in plan.rows)
        seen["chunks"] += sum(not row.samples for row in plan.rows)
        seen["mixed"] += 0 < decodes < len(plan.rows)
        seen["preemptions"] += len(plan.preempted)

    made.on_step = on_step
    return seen


def test_greedy_tokens_are_those_of_transformers_under_pressure_and_with_shared_prefixes(
    checkpoint,
):
    stem = prompt_of(32, 99)  # two pages
    prompts = [
        (*stem[:n], *prompt_of(own, own)) for n, own in ((0, 9), (32, 5), (20, 17), (32, 20))
    ]
    prompts.append(stem)  # found but for its last page, which must give the first token
    wanted = [
        Submission(
            request=Request(
                request_id=i, prompt_tokens=len(prompt), max_tokens=40, temperature=0.0
            ),
            prompt=prompt,
        )
        for i, prompt in enumerate(prompts)
    ]
    expected = stock_tokens(checkpoint, prompts, 40)
    assert len({token for tokens in expected for token in tokens}) > 20  # it does not babble
    loaded = load(str(checkpoint))
    for sharing in (False, True):
        made = Engine(loaded, get_preset("baseline"), TIGHT, STEP_LAW, prefix_caching=sharing)
        seen = events(made)
        assert [g.tokens for g in made.run(wanted)] == expected
        assert min(seen[name] for name in ("chunks", "mixed", "preemptions")) > 0, seen
        rows = made.ledger.requests
        hits = dict(zip(rows["request_id"].tolist(), rows["prefix_hit_tokens"], strict=True))
        assert ((hits[3], hits[4]) == (32, 16)) if sharing else not any(hits.values())


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_sliding_window_is_served_up_to_its_length_and_no_further(kind, tmp_path):
    folder = save(kind, tmp_path, **FAMILIES[kind])
    loaded = load(str(folder))
    assert loaded.max_context == WINDOW < POSITIONS
    longest = submission(0, WINDOW - 20, 20, temperature=0.0)
    limits = replace(TIGHT, max_context=loaded.max_context)
    made = engine(loaded, "baseline", limits)
    assert [g.tokens for g in made.run([longest])] == stock_tokens(folder, [longest.prompt], 20)
    with pytest.raises(ValueError, match=f"max_context = {WINDOW}"):
        made.submit(submission(1, WINDOW - 20, 21).request, submission(1, WINDOW - 20).prompt)


def test_a_rope_that_depends_on_the_longest_request_is_capped_where_it_is_exact():
    factors = [1.0] * 8
    rope = {"rope_type": "longrope", "short_factor": factors, "long_factor": factors}
    fields = {"rope_parameters": rope, "original_max_position_embeddings": 64}
    config = AutoConfig.for_model("phi3", **{**SMALL, **fields})
    assert inspect_config(config).max_context == 64


REFUSED = [
    ("gemma2", {}, "layer 0 caps its attention logits (softcap=50.0)"),
    ("gpt_oss", {}, "layer 0 hands attention s_aux (learned sinks or a bias)"),
    ("deepseek_v3", {}, "multi-head latent attention keeps no K and V per head"),
    ("t5", {}, "it is an encoder-decoder; we serve decoders"),
    ("mamba", {}, "mixes tokens outside attention"),
    ("falcon_h1", {}, "mixes tokens outside attention"),  # beside attention, in every layer
    ("lfm2", {"layer_types": ["conv", "full_attention"]}, "mixes tokens outside attention"),
    ("minimax", {}, "1 attention calls reach us from 2 layers"),  # the other one is linear
    ("bert", {"is_decoder": False}, "layer 0 is not causal"),
    ("bloom", {}, "takes no position_ids"),  # its positions are a bias we never see
    ("gptj", {}, "it chooses its attention from a table of its own"),
    ("gemma4_text", {}, "differ in heads or head size"),
]


@pytest.mark.parametrize(("kind", "fields", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_attention_cannot_serve_exactly_is_refused_before_weights_are_read(
    kind, fields, reason, tmp_path
):
    config = AutoConfig.for_model(kind, **{"num_hidden_layers": 2, **fields})
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(UnsupportedModel) as caught:
        load(str(tmp_path))
    text = str(caught.value)
    assert text.startswith(f"model {tmp_path}: model_type '{kind}' is not supported: ")
    assert reason in text
    assert "\n" not in text
