"""How stock transformers serves the same load: one padded ``generate``, or continuous batching."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reports.bench.rows import BenchError
from reports.bench.serve import TOKEN_BUDGET, Load, Served, require_whole

PEERS = ("transformers", "continuous")
BLOCK_TOKENS = 256  # tokens of a block of the continuous batcher's cache, its default
PAD = 0


class _Times:
    """A streamer that only notes when a token came; one per pass, for the whole batch."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """Take what ``generate`` hands over: first the prompt, then each step's tokens."""
        del value
        if not self._prompt:
            self.at.append(time.perf_counter())
        self._prompt = False

    def end(self) -> None:
        """Nothing is held back."""


@torch.no_grad()
def padded(network: Any, load: Load) -> Served:
    """Serve in batches of ``max_seqs`` by ``generate``, prompts padded on the left.

    A request's tokens come with its batch; the next batch starts when the last one ends.
    """
    network.set_attn_implementation("sdpa")
    config = _config(load.max_tokens, end=None)
    times, tokens = [], []
    started = time.perf_counter()
    for first in range(0, len(load.prompts), load.max_seqs):
        batch = load.prompts[first : first + load.max_seqs]
        ids, mask = _left_padded(batch)
        watch = _Times()
        out = network.generate(ids, attention_mask=mask, generation_config=config, streamer=watch)
        new = out[:, ids.shape[1] :].tolist()
        tokens += [tuple(row) for row in new]
        times += [tuple(at - started for at in watch.at)] * len(batch)
    require_whole("transformers", load, tokens)
    return Served(tuple(times), tuple(tokens))


def continuous(network: Any, load: Load) -> Served:
    """Serve by the continuous batcher of ``transformers``, with as many tokens a step as ours.

    Its cache is made as large as the load and no larger: left to itself it would take most of
    the machine's memory, and the time to clear it.
    """
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    blocks = sum(-(-(len(p) + load.max_tokens) // BLOCK_TOKENS) + 1 for p in load.prompts)
    config = ContinuousBatchingConfig(
        page_size=BLOCK_TOKENS,
        num_blocks=blocks,
        max_batch_tokens=TOKEN_BUDGET,
        max_requests_per_batch=load.max_seqs,
        use_cuda_graph=False,
        use_async_batching=False,
    )
    with network.continuous_batching_context_manager(
        generation_config=_config(load.max_tokens, end=-1), continuous_batching_config=config
    ) as manager:
        started = time.perf_counter()
        names = [
            manager.add_request(
                list(prompt), max_new_tokens=load.max_tokens, record_timestamps=True
            )
            for prompt in load.prompts
        ]
        found = _collect(manager, len(names))
    network.set_attn_implementation("sdpa")  # the batcher leaves its own behind
    tokens = tuple(tuple(found[name].generated_tokens) for name in names)
    require_whole("continuous", load, tokens)
    times = tuple(tuple(at - started for at in found[name].timestamps) for name in names)
    return Served(times, tokens)


def _collect(manager: Any, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while len(found) < count:
        result = manager.get_result(timeout=1)
        if result is not None and result.error is not None:
            raise BenchError(f"serve continuous: request {result.request_id}: {result.error}")
        if result is not None and result.is_finished():
            found[result.request_id] = result
        elif result is None and not manager.is_running():
            raise BenchError(f"serve continuous: the batcher stopped after {len(found)} requests")
    return found


def _config(max_tokens: int, *, end: int | None) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=end, pad_token_id=PAD
    )


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask ``[B, longest]``."""
    longest = max(map(len, prompts))
    ids = [[PAD] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)
