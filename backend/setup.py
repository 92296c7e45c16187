"""Defaults of a live run on this machine, and the pieces commands assemble it from."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from backend.models import LoadedModel
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from traces.console import note
from traces.profile import read_profile
from traces.prompts import BUILTIN, Prompt, load_prompts

PAGE_TOKENS = 16
BYTES_PER_NUMBER = 4  # the reference cache is float32
PROFILE = Path(__file__).parent.parent / "traces" / "data" / "profile_cpu_smollm2.json"


def default_limits(
    loaded: LoadedModel, *, max_seqs: int, token_budget: int, pool_tokens: int
) -> EngineLimits:
    """Return limits for a pool of ``pool_tokens`` token positions."""
    return EngineLimits(
        max_seqs=max_seqs,
        token_budget=token_budget,
        n_pages=-(-pool_tokens // PAGE_TOKENS),
        page_tokens=PAGE_TOKENS,
        max_context=loaded.max_context,
    )


def page_unit_bytes(loaded: LoadedModel, page_tokens: int) -> int:
    """Return the bytes of K and V of one page, one layer, one KV head, in float32."""
    return 2 * page_tokens * loaded.head_dim * BYTES_PER_NUMBER


def default_step_law() -> StepLaw:
    """Return the committed CPU profile's step law: the macro law's price of work."""
    return read_profile(PROFILE).law


def choose_prompts(folder: Path | None, per_class: int, seed: int) -> tuple[Prompt, ...]:
    """Return prompts from the public sets at ``folder``, or our built-in ones without it.

    The built-in set is small: a class gives as many as it has, up to ``per_class``.
    """
    if folder is not None:
        return tuple(load_prompts(folder, per_class, seed))
    note("no folder of public prompt sets is given: recording the built-in prompts")
    seen: Counter[str] = Counter()
    chosen = []
    for prompt in BUILTIN:
        seen[prompt.task_class] += 1
        if seen[prompt.task_class] <= per_class:
            chosen.append(prompt)
    return tuple(chosen)


def data_folder() -> Path | None:
    """Return the folder ``ENTROPIC_DATA`` names, if it is set and not empty."""
    place = os.environ.get("ENTROPIC_DATA") or None
    if place is not None and not Path(place).is_dir():
        raise ValueError(f"ENTROPIC_DATA must be a folder; got {place!r}")
    return None if place is None else Path(place)


def make_request(
    loaded: LoadedModel,
    request_id: int,
    text: str,
    *,
    max_tokens: int,
    temperature: float,
    target_nats: float,
    seed: int,
    task_class: str = "unknown",
    one_sided: bool = False,
) -> tuple[Request, tuple[int, ...]]:
    """Encode one chat turn and return the request with its prompt ids."""
    ids = tuple(loaded.encode_chat(text))
    request = Request(
        request_id=request_id,
        prompt_tokens=len(ids),
        max_tokens=max_tokens,
        temperature=temperature,
        target_nats=target_nats,
        seed=seed,
        task_class=task_class,
        one_sided=one_sided,
    )
    return request, ids
