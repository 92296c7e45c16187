"""The examples of a run, checked against the model that is to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from backend.models import LoadedModel
from backend.setup import PAGE_TOKENS
from backend.sparse import SparseAttention
from reports.evaluation.example import Example, Request
from reports.evaluation.settings import Setting, score_price
from reports.evaluation.tasks import build


def choose_examples(
    loaded: LoadedModel,
    names: Sequence[str],
    *,
    n: int,
    seed: int,
    context: int,
    data: Path | None,
    forced_tokens: int,
    max_tokens: int | None,
) -> list[Example]:
    """Return ``n`` examples of each task in ``names``, of at most ``context`` tokens each.

    ``data`` is the folder of public files; ``max_tokens`` caps replies. Raises ``ValueError`` where
    a prompt and what follows it would not fit the model.
    """
    room = loaded.max_context - forced_tokens
    if context > room:
        raise ValueError(
            f"context must be <= {room}: {loaded.name} has {loaded.max_context} tokens and "
            f"{forced_tokens} are forced; got {context}"
        )
    request = Request(
        n=n,
        seed=seed,
        context=context,
        count=lambda text: len(loaded.encode_chat(text)),
        prompts=None if data is None else data / "prompts",
    )
    examples = [_capped(example, max_tokens) for example in build(names, request)]
    longest = max(request.count(example.prompt) + example.max_tokens for example in examples)
    if longest > loaded.max_context:
        raise ValueError(
            f"context must leave room for a reply: a prompt and its reply need {longest} tokens "
            f"and {loaded.name} has {loaded.max_context}; got context={context}"
        )
    return examples


def configuration(
    loaded: LoadedModel, examples: Sequence[Example], asked: dict[str, Any]
) -> dict[str, Any]:
    """Return all that a file of rows depends on: what was asked, the model and the examples."""
    return asked | {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "examples": [example.key for example in examples],
        "attention": asdict(SparseAttention()),
    }


def prices(loaded: LoadedModel, settings: Sequence[Setting]) -> dict[str, float]:
    """Return what scoring a page costs in each setting, over reading it."""
    return {
        s.name: score_price(s.sparse, page_tokens=PAGE_TOKENS, head_dim=loaded.head_dim)
        for s in settings
    }


def _capped(example: Example, max_tokens: int | None) -> Example:
    if max_tokens is None or max_tokens >= example.max_tokens:
        return example
    return replace(example, max_tokens=max_tokens)
