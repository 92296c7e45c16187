"""Defaults of a live run on this machine, and the pieces commands assemble it from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from backend.arguments import short, text
from backend.errors import OutOfMemory
from backend.models import LoadedModel
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from traces.console import note
from traces.profile import read_profile
from traces.profiles import CPU
from traces.prompts import BUILTIN, Prompt, load_prompts

PAGE_TOKENS = 16
BYTES_PER_NUMBER = 4  # of the reference cache, and of page statistics on any device


def default_limits(
    loaded: LoadedModel,
    *,
    max_seqs: int,
    token_budget: int,
    pool_tokens: int,
    page_tokens: int = PAGE_TOKENS,
) -> EngineLimits:
    """Return limits for a pool of at least ``pool_tokens`` token positions."""
    return EngineLimits(
        max_seqs=max_seqs,
        token_budget=token_budget,
        n_pages=-(-pool_tokens // page_tokens),
        page_tokens=page_tokens,
        max_context=loaded.max_context,
    )


def pool_bytes(loaded: LoadedModel, limits: EngineLimits) -> int:
    """Return the bytes of a KV pool: K and V, and two statistics of each page's keys."""
    numbers = loaded.layers * loaded.kv_heads * loaded.head_dim
    tokens = 2 * limits.page_tokens * loaded.dtype.itemsize
    return numbers * limits.n_pages * (tokens + 2 * BYTES_PER_NUMBER)


def check_memory(loaded: LoadedModel, limits: EngineLimits) -> None:
    """Raise ``OutOfMemory`` for a pool larger than what is free, where the system says.

    Systems promise memory they do not have: without this the process dies when the pool fills.
    """
    needed, device = pool_bytes(loaded, limits), loaded.device
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes()
    if free is not None and needed > free:
        raise OutOfMemory(
            f"the KV pool must fit the free memory of {free / 1e9:.2f} GB; "
            f"got n_pages={limits.n_pages}, which take {needed / 1e9:.2f} GB"
        )


def free_bytes() -> int | None:
    """Return the memory this process may still take: the system's, or its control group's."""
    found = []
    system = _numbers(Path("/proc/meminfo"))
    if "MemAvailable:" in system:
        found.append(system["MemAvailable:"] * 1024)
    group = Path("/sys/fs/cgroup")
    limit, held = group / "memory.max", _numbers(group / "memory.stat")
    if limit.is_file() and limit.read_text().strip().isdigit() and "anon" in held:
        found.append(max(0, int(limit.read_text()) - held["anon"]))  # file caches give way
    return min(found, default=None)


def _numbers(path: Path) -> dict[str, int]:
    """Return the first number of each line of a system file, by the line's first word."""
    lines = path.read_text().splitlines() if path.is_file() else []
    words = (line.split() for line in lines)
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def page_unit_bytes(loaded: LoadedModel, page_tokens: int) -> int:
    """Return the bytes of K and V of one page, one layer, one KV head."""
    return 2 * page_tokens * loaded.head_dim * loaded.dtype.itemsize


def default_step_law() -> StepLaw:
    """Return the committed CPU profile's step law: the macro law's price of work."""
    return read_profile(CPU).law


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


def encode_messages(loaded: LoadedModel, messages: Iterable[Mapping[str, str]]) -> list[int]:
    """Return the ids of a conversation in the model's chat format, ready for the next reply.

    Without a chat format the contents are joined by newlines. Raises ``ValueError`` for messages
    that are no ``{"role": ..., "content": ...}`` or that the format refuses.
    """
    turns = _turns(messages)
    tokenizer = loaded.tokenizer
    if not tokenizer.chat_template:
        return list(tokenizer("\n".join(each["content"] for each in turns)).input_ids)
    from jinja2 import TemplateError

    try:
        encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    except TemplateError as error:
        raise ValueError(f"messages do not fit the chat format of {loaded.name}: {error}") from None
    return list(encoded["input_ids"])


def _turns(messages: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return a conversation's messages as they are, if they are messages."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise ValueError(f"messages must be a sequence of messages; got {short(messages)}")
    turns = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {index} must be a mapping; got {short(message)}")
        if set(message) != {"role", "content"}:
            fields = sorted(map(str, message))
            raise ValueError(f"message {index} must have a role and a content; got {fields}")
        turns.append({name: text(f"{name} of message {index}", message[name]) for name in message})
    if not turns:
        raise ValueError("messages must hold one message at least; got []")
    return turns


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
