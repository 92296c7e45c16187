"""The engine and the traffic of a soak."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from backend.engine import Engine
from backend.models import load
from backend.setup import default_step_law
from backend.sparse import SparseAttention
from controllers.core import require
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from reports.soak.model import tiny_model
from reports.soak.traffic import Arrival, Mix, arrivals

DEFAULT_MODEL = "default"  # the word for the model every other command takes by default
PAGE_TOKENS = 16
TOKEN_BUDGET = 64


def build(
    *,
    model: str | None,
    preset: str,
    max_seqs: int,
    n_pages: int,
    history: int | None,
    seed: int,
    everything: bool = True,
) -> tuple[Engine, Iterator[Arrival]]:
    """Return an engine whose slots, pages and prompt chunks all bind, and endless traffic.

    With ``everything`` prompts share pages, requests give pages up, and pruning starts at once.
    """
    chosen = get_preset(preset)
    if everything:
        chosen = replace(chosen, sparse_min_context=1, kv_budget_pages=6, kv_burst_pages=1)
    if model is None:
        torch.set_num_threads(1)  # threads cost a tiny model more than they give
        loaded = tiny_model(seed)
    else:
        loaded = load(None if model == DEFAULT_MODEL else model)
        for weight in loaded.model.parameters():
            weight.sum()  # a mapped file counts as resident when it is read, which is no leak
    mix = Mix()
    limits = EngineLimits(
        max_seqs=max_seqs,
        token_budget=max(TOKEN_BUDGET, max_seqs),
        n_pages=n_pages,
        max_context=min(loaded.max_context, mix.longest),
        page_tokens=PAGE_TOKENS,
    )
    require(
        limits.pages_for(mix.longest) <= n_pages,
        f"pages must hold the longest request of {mix.longest} tokens",
        pages=n_pages,
    )
    engine = Engine(
        loaded,
        chosen,
        limits,
        default_step_law(),
        history=history,
        sparse=SparseAttention(min_pages=1 if everything else 16),
        prefix_caching=everything,
    )
    traffic = arrivals(mix, vocabulary=loaded.vocabulary, max_context=limits.max_context, seed=seed)
    return engine, traffic
