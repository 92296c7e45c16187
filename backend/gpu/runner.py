"""Decode a fixed batch step by step on one device; on CUDA, by replaying one captured graph.

All state, the step counter among it, lives on the device: a replay feeds the tokens it drew back to
itself, and the host neither waits nor decides. There is no scheduling: rows start together, and a
row that would have stopped goes on.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from backend.gpu.cache import DeviceCache
from backend.gpu.control import Plain
from backend.gpu.decoder import Decoder, Reads
from controllers.selection import Pins

WARMUP = 3  # eager steps before a capture: kernels compile and buffers reach their size


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from freeing device memory in a capture, which a cycle's end may do any time."""
    gc.collect()
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class DecodeRunner:
    """A batch in service: its last tokens, lengths and output, and the graph of one step."""

    def __init__(
        self,
        decoder: Decoder,
        cache: DeviceCache,
        sampler: Plain,
        *,
        steps: int,
        pins: Pins | None = None,
        masses: bool = False,
        counts: bool = False,
    ) -> None:
        """Prepare ``steps`` tokens per row.

        Args:
            masses: take each page's attention mass in every step, as eviction needs.
            counts: add up the pages read, in ``pages_read``; a few launches per step.
        """
        rows, device = len(sampler.requests), decoder.weights.device
        longest = max(request.prompt_tokens for request in sampler.requests)
        if longest + steps - 1 > cache.capacity or cache.table.shape[0] != rows:
            raise ValueError(
                f"cache: must hold {rows} rows of {longest + steps - 1} tokens; "
                f"got {cache.table.shape[0]} of {cache.capacity}"
            )
        if len(sampler.noise) < steps:
            raise ValueError(f"sampler: must hold {steps} draws; got {len(sampler.noise)}")
        self.decoder, self.cache, self.sampler, self.steps = decoder, cache, sampler, steps
        self.pins, self.masses, self._counts = pins or Pins(), masses, counts
        prompts = [request.prompt_tokens for request in sampler.requests]
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self._lengths = torch.tensor(prompts, dtype=torch.int64, device=device)  # without _tokens
        self._generated = torch.zeros(1, dtype=torch.int64, device=device)
        self._out = torch.full((steps, rows), -1, dtype=torch.int64, device=device)
        self.pages_read = torch.zeros(1, dtype=torch.int64, device=device)  # of all layers, heads
        self.pages_dense = torch.zeros(1, dtype=torch.int64, device=device)
        self.done = 0  # steps launched
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def tokens(self) -> Tensor:
        """The tokens drawn so far, int64 ``[B, done]``, on the device."""
        return self._out[: self.done].T

    @property
    def captured(self) -> bool:
        """Whether steps replay a graph."""
        return self._graph is not None

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> None:
        """Compute the prompts, each at once, and draw every row's first token."""
        last = []
        for row, prompt in enumerate(prompts):
            tokens = torch.tensor(list(prompt), device=self._tokens.device)
            last.append(self.decoder.prefill(tokens, self.cache, row))
        self._take(torch.cat(last))
        self.done = 1

    @torch.no_grad()
    def pretend(self, first: Tensor) -> None:
        """Take what the cache holds as the prompts, ``first`` int64 ``[B]`` as first tokens."""
        self._tokens.copy_(first)
        self._out[0].copy_(first)
        self._generated.fill_(1)
        self.done = 1

    @torch.no_grad()
    def run(self, steps: int, *, graph: bool = False) -> None:
        """Launch ``steps`` more; with ``graph`` capture first, after eager steps that count too.

        Returns without waiting for the device.
        """
        if self.done < 1:
            raise ValueError("run: the rows have no first token; call prefill or pretend before")
        if self.done + steps > self.steps:
            raise ValueError(
                f"steps: {self.steps - self.done} are left of {self.steps}; got {steps}"
            )
        if graph and self._graph is None and steps > WARMUP:
            self._capture()
            steps -= WARMUP
        for _ in range(steps):
            if graph and self._graph is not None:
                self._graph.replay()
            else:
                self._step()
            self.done += 1

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                self._step()
                self.done += 1
        torch.cuda.current_stream().wait_stream(side)
        side.synchronize()
        made = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(made):
            self._step()
        self._graph = made

    def _step(self) -> None:
        kept: list[Tensor] | None = [] if self._counts else None
        self._lengths.add_(1)
        at = self.cache.at(self._lengths)
        reads = Reads(self.sampler.coverage, self.pins, self.masses, kept)
        logits = self.decoder.decode(self._tokens, self._lengths - 1, self.cache, at, reads)
        if kept is not None:
            shape = self.decoder.weights.shape
            self.pages_read += torch.stack([layer.sum() for layer in kept]).sum()
            self.pages_dense += at.n_pages.sum() * (shape.layers * shape.kv_heads)
        self._take(logits)

    def _take(self, logits: Tensor) -> None:
        """Draw from the logits, and make the tokens the next step's input."""
        tokens = self.sampler.sample(logits, self._generated)
        self._out.index_copy_(0, self._generated, tokens[None])
        self._tokens.copy_(tokens.clamp_min(0))
        self._generated.add_(1)
