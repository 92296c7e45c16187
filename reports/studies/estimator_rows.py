"""Live logit rows for the estimator study, held-out tokens for T_cal, and what a pass costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from backend.engine import Engine, Submission
from backend.models import LoadedModel
from backend.sensors import entropy_varentropy
from backend.setup import default_limits, default_step_law, make_request
from controllers.calibration import Source
from controllers.presets import get_preset
from reports.studies.estimators import Rows
from traces.prompts import Prompt

MAX_PROMPT_TOKENS = 512  # of a prompt's text; longer ones are left out, and counted
BATCHES = (1, 16, 64)  # rows a step samples
REPEATS = 9
MAX_HELD_OUT_TOKENS = 4096  # their float32 logits are held in memory, 0.8 GB for SmolLM2
CHUNK = 256  # rows turned to float64 at a time

Progress = Callable[[int, int], None]


def generated_rows(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Rows, int]:
    """Sample a reply to each prompt at T = 1, then return the logits each token was drawn from.

    Also returns how many prompts were left out for their length. Logits come from one dense pass
    over prompt and reply with the model's stock attention.
    """
    texts = [(i, p, loaded.encode_chat(p.text)) for i, p in enumerate(prompts)]
    kept = [(i, p) for i, p, ids in texts if len(ids) <= MAX_PROMPT_TOKENS]
    submissions = [_ask(loaded, i, prompt, max_tokens, seed) for i, prompt in kept]
    limits = default_limits(
        loaded,
        max_seqs=16,
        token_budget=512,
        pool_tokens=16 * (MAX_PROMPT_TOKENS + max_tokens + 16),
    )
    engine = Engine(loaded, get_preset("baseline"), limits, default_step_law())
    replies = {g.request.request_id: list(g.tokens) for g in engine.run(submissions)}
    _use_stock_attention(loaded)
    logits, sequence = [], []
    for order, submission in enumerate(submissions):
        reply = replies[submission.request.request_id]
        logits.append(_logits(loaded, [*submission.prompt, *reply])[-len(reply) - 1 : -1])
        sequence.append(np.full(len(reply), order))
        if progress is not None:
            progress(order + 1, len(submissions))
    rows = Rows(np.concatenate(logits), np.concatenate(sequence), np.arange(len(submissions)))
    return rows, len(prompts) - len(kept)


def held_out(loaded: LoadedModel, prompts: Sequence[Prompt]) -> Source:
    """Return the prompts' own texts, written by people, as logits and the tokens that came next."""
    _use_stock_attention(loaded)
    batches, tokens_left = [], MAX_HELD_OUT_TOKENS
    for prompt in prompts:
        ids = list(loaded.tokenizer(prompt.text).input_ids)[: min(MAX_PROMPT_TOKENS, tokens_left)]
        if len(ids) >= 2:
            tokens_left -= len(ids)
            batches.append((_logits(loaded, ids)[:-1], np.array(ids[1:])))

    def pieces() -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (logits[i : i + CHUNK], tokens[i : i + CHUNK])
            for logits, tokens in batches
            for i in range(0, len(tokens), CHUNK)
        ]

    return pieces


def costs(logits: np.ndarray, ks: Sequence[int]) -> list[dict[str, object]]:
    """Time the exact pass and the top-k ones on the same rows; medians, microseconds a row.

    ``lse`` is the log-sum-exp alone, which every estimator and every sampler needs: what remains
    above it is the price of entropy. Only ratios within one row of the table mean anything.
    """
    found = []
    for batch in BATCHES:
        rows = torch.from_numpy(logits[:batch].copy())
        x = torch.zeros(len(rows))
        lse_us = _time_us(lambda rows=rows: rows.logsumexp(-1))
        exact_us = _time_us(lambda rows=rows, x=x: entropy_varentropy(rows, x))
        for k in ks:
            top_us = _time_us(lambda rows=rows, k=k: _top_k_entropy(rows, k))
            found.append(
                {
                    "rows": len(rows),
                    "k": k,
                    "lse_us_per_row": lse_us / len(rows),
                    "exact_us_per_row": exact_us / len(rows),
                    "top_k_us_per_row": top_us / len(rows),
                    "exact_over_top_k": exact_us / top_us,
                }
            )
    return found


def _top_k_entropy(rows: Tensor, k: int) -> Tensor:
    """Return the tail-corrected estimate, as a server would compute it from logits."""
    logp = rows.topk(k, dim=-1).values - rows.logsumexp(-1, keepdim=True)
    p = logp.exp()
    mass = p.sum(-1)
    tail = (1.0 - mass).clamp_min(1e-12)
    kept = -(p * logp).sum(-1) / mass + mass.log()
    outside = float(rows.shape[1] - k)
    binary = -mass * mass.log() - tail * tail.log()
    return kept + binary + tail * np.log(outside)


def _time_us(run: Callable[[], object]) -> float:
    run()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return 1e6 * float(np.median(taken))


def _use_stock_attention(loaded: LoadedModel) -> None:
    # Ours serves paged steps; a plain forward over one sequence wants the model's own.
    loaded.model.set_attn_implementation("sdpa")


def _logits(loaded: LoadedModel, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids])).logits[0].float().numpy()


def _ask(loaded: LoadedModel, index: int, prompt: Prompt, max_tokens: int, seed: int) -> Submission:
    request, ids = make_request(
        loaded,
        index,
        prompt.text,
        max_tokens=max_tokens,
        temperature=1.0,
        target_nats=1.0,
        seed=seed * 1000 + index,
        task_class=prompt.task_class,
    )
    return Submission(request=request, prompt=ids)
