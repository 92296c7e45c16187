"""Forced rows: an example's texts scored under every setting, as one row of the file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.models import LoadedModel
from backend.sampler import uniforms
from controllers.core import require
from reports.evaluation.example import Example
from reports.evaluation.forced import Choose, ForcedScorer
from reports.evaluation.lane import Scored

DIGITS = 7  # kept of per-token numbers


def reply_row(scorer: ForcedScorer, example: Example) -> dict[str, Any]:
    """Force the example's correct reply; its prompt must be prefilled."""
    tokens = list(scorer.loaded.tokenizer(example.reply).input_ids)[: scorer.max_tokens]
    return _row(scorer, example, "reply", along(tokens))


def sampled_row(
    scorer: ForcedScorer, example: Example, *, temperature: float, seed: int
) -> dict[str, Any]:
    """Force what the dense model itself goes on to say, up to its stop token."""
    choose = sampler(scorer.loaded, temperature=temperature, seed=seed)
    return _row(scorer, example, "sampled", choose)


def along(tokens: list[int]) -> Choose:
    """Force ``tokens``."""
    return lambda position, _: tokens[position] if position < len(tokens) else None


def sampler(loaded: LoadedModel, *, temperature: float, seed: int) -> Choose:
    """Force a dense continuation at ``temperature``; 0 is greedy. It ends before a stop token."""
    require(temperature >= 0.0, "temperature must be >= 0", temperature=temperature)
    draw: Callable[[int, Tensor], int] = (
        (lambda _, logits: int(logits.argmax()))
        if temperature == 0.0
        else (lambda position, logits: _draw(logits / temperature, seed, position))
    )

    def choose(position: int, logits: Tensor) -> int | None:
        token = draw(position, logits)
        return None if token in loaded.stop_ids else token

    return choose


def _draw(logits: Tensor, seed: int, position: int) -> int:
    reached = logits.double().softmax(-1).cumsum(-1)
    noise = uniforms([seed], [position]) * reached[-1]
    return min(int(torch.searchsorted(reached, noise, right=True)), len(logits) - 1)


def _row(scorer: ForcedScorer, example: Example, text: str, choose: Choose) -> dict[str, Any]:
    tokens, found = scorer.score(choose)
    return {
        "kind": "forced",
        "text": text,
        "task": example.task,
        "document": example.document,
        "prompt_tokens": scorer.prompt_tokens,
        "tokens": len(tokens),
        "settings": {name: _numbers(scored) for name, scored in found.items()},
    }


def _numbers(scored: Scored) -> dict[str, Any]:
    asked = scored.coverage
    return {
        "kl_nats": _rounded(scored.kl_nats),
        "agreed": int(sum(scored.agrees)),
        "nll_nats": float(np.sum(scored.nll_nats)),
        "dense_nll_nats": float(np.sum(scored.dense_nll_nats)),
        "pruned_tokens": sum(coverage < 1.0 for coverage in asked),
        "coverage": float(np.sum(asked)),
        "looked_at": len(scored.dropped),
        "dropped": float(np.sum(scored.dropped)),
        "asked_dropped": float(np.sum(scored.asked_there)),
        "units_read": scored.units_read,
        "units_dense": scored.units_dense,
        "units_scored": scored.units_scored,
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]
