"""Temperature and coverage laws of a fixed batch on its device, with no decision on the host.

The same law objects as the CPU engine's and the simulator's, on torch lanes; their states are
buffers written in place, so that a captured graph finds them where it left them. The rules around
the coverage law are those of ``controllers.serving.coverage_control``, lane by lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backend.sampler import uniforms
from controllers.core import State, TokenSignal, tree_map
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from controllers.serving.lane_table import fixed_signal
from controllers.serving.request import Request
from kernels.twins import Twins

Advanced = tuple[State, Tensor, State, Tensor]


class Plain:
    """Draws at each request's own temperature and reads every page: what no control costs."""

    def __init__(
        self, requests: Sequence[Request], twins: Twins, *, steps: int, device: torch.device | str
    ) -> None:
        """Lay out ``steps`` draws per request, which all start together."""
        self.twins, self.requests = twins, tuple(requests)
        seeds = [request.seed for request in requests]
        noise = torch.stack([uniforms(seeds, [step] * len(seeds)) for step in range(steps)])
        self.noise = noise.to(device)
        self.x_user = _lanes([request.x_user for request in requests], device)
        self.greedy = torch.tensor([request.greedy for request in requests], device=device)
        self._any_greedy = any(request.greedy for request in requests)

    @property
    def coverage(self) -> Tensor | None:
        """What the next row keeps, float32 ``[B]``; None where every page is read unscored."""
        return None

    def sample(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Return one token per row of ``logits [B, n]``, int64; -1 where not measurable.

        ``generated`` is int64 ``[1]``: the tokens drawn before, by every row.
        """
        noise = self.noise.index_select(0, generated)[0]
        tokens = self.twins.draw(logits, self.x_user, noise).tokens
        if self._any_greedy:
            tokens = torch.where(self.greedy & (tokens >= 0), logits.argmax(-1), tokens)
        return tokens


class Control(Plain):
    """Measures the logits, runs both laws, draws at the commanded temperature."""

    def __init__(
        self,
        preset: Preset,
        requests: Sequence[Request],
        twins: Twins,
        *,
        steps: int,
        device: torch.device | str,
        t_cal: float = 1.0,
        min_pages: int = 128,
        page_tokens: int = 16,
        selects: bool = True,
        compiled: bool = False,
    ) -> None:
        """Start both laws.

        Args:
            min_pages: as in ``SparseAttention``; steps: the most draws of a request.
            selects: let the coverage law prune; if not it runs, and every page is read.
            compiled: have torch.compile fuse the laws into one kernel.
        """
        super().__init__(requests, twins, steps=steps, device=device)
        if preset.stages or preset.kv_budget_pages is not None:
            raise ValueError(
                f"preset: the GPU runner neither truncates nor evicts; got {preset.name!r}"
            )
        self.preset, self._x_cal = preset, math.log(t_cal)
        like = torch.zeros(1, device=device)
        each = [fixed_signal(request, like) for request in requests]
        self.signal = TokenSignal(*(torch.cat(leaf) for leaf in zip(*each, strict=True)))
        self._on = _lanes([float(request.enabled) for request in requests], device)
        self._least = _lanes([request.min_coverage for request in requests], device)
        ids = [request.request_id for request in requests]
        self._ids = torch.tensor(ids, dtype=torch.int64, device=device)
        prompts = [request.prompt_tokens for request in requests]
        self._prompts = torch.tensor(prompts, dtype=torch.int64, device=device)
        self._sparse_from = max(preset.sparse_min_context, (min_pages - 1) * page_tokens + 1)
        self.state = _owned(preset.temperature.init(self.signal))
        self.coverage_state = _owned(preset.coverage.init(self.signal))
        dense = preset.coverage == FixedCoverage() and not any(r.min_coverage for r in requests)
        self._selects = selects and not dense
        self.next_coverage = torch.ones(len(requests), device=device)
        self.command = self.x_user.clone()
        self.surprisal = torch.zeros(len(requests), device=device)
        self._laws: Callable[..., Advanced] = self._advance
        if compiled:
            self._laws = torch.compile(self._advance, fullgraph=True, dynamic=False)

    @property
    def coverage(self) -> Tensor | None:
        """What the next row keeps, float32 ``[B]``; None where every page is read unscored."""
        return self.next_coverage if self._selects else None

    def sample(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Draw as ``Plain`` does, at the law's command; set the coverage of the next row."""
        law = self.preset.temperature
        x_in = law.x_in(self.state)
        fixed = (0.0,) if self._x_cal == 0.0 else (0.0, self._x_cal)
        x = torch.stack([*(torch.full_like(x_in, value) for value in fixed), x_in], dim=1)
        stats = self.twins.row_stats(logits, x)
        signal = self.signal._replace(
            h_cal=stats.h[:, -2],
            v_cal=stats.v[:, -2],
            h_in=stats.h[:, -1],
            v_in=stats.v[:, -1],
            surprisal=self.surprisal,
            position=generated.float().expand(len(x)),
        )
        state, command, coverage_state, coverage = self._laws(
            self.state, self.coverage_state, signal, generated
        )
        noise = self.noise.index_select(0, generated)[0]
        drawn = self.twins.draw(logits, command, noise).tokens
        tokens = torch.where(self.greedy, stats.argmax, drawn)
        chosen = logits.gather(1, tokens.clamp_min(0)[:, None])[:, 0].float()
        self.surprisal.copy_(stats.lse[:, 0] - chosen)
        self.command.copy_(command)
        self.next_coverage.copy_(coverage)
        tree_map(_store, self.state, state)
        tree_map(_store, self.coverage_state, coverage_state)
        return tokens

    def _advance(
        self, state: State, coverage_state: State, signal: TokenSignal, generated: Tensor
    ) -> Advanced:
        """Run both laws and the rules around coverage; pure, so that it compiles to one kernel."""
        state, command = self.preset.temperature.update(state, signal)
        # The signal's own mask is the temperature law's, which leaves greedy requests out.
        seen = signal._replace(enabled=self._on)
        coverage_state, coverage = self.preset.coverage.update(coverage_state, seen)
        return state, command, coverage_state, self._ruled(coverage, generated + 1)

    def _ruled(self, coverage: Tensor, generated: Tensor) -> Tensor:
        """Return the coverage of a decode row after ``generated`` tokens."""
        coverage = torch.maximum(coverage, self._least)
        sparse = (coverage > 0.0) & (coverage < 1.0) & (self._on > 0.0)
        sparse = sparse & (self._prompts + generated >= self._sparse_from)
        if self.preset.probe_every > 0:
            sparse = sparse & ((generated + self._ids) % self.preset.probe_every != 0)
        # A scalar operand would be copied to the device, which a graph cannot hold.
        return torch.where(sparse, coverage, torch.ones_like(coverage))


def _lanes(values: Sequence[float], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _owned(state: State) -> State:
    """Return the state in buffers of its own; a law's first state may alias its signal."""
    return tree_map(lambda leaf: leaf.clone(), state)


def _store(buffer: Tensor, value: Tensor) -> Tensor:
    return buffer.copy_(value)
