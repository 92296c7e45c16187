"""The live executor: runs a plan on a model, decides temperatures inside the step, samples."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from backend.attention import PageObserver
from backend.cache import PagedCache
from backend.cuts import Cuts
from backend.models import LoadedModel
from backend.sampler import sample, uniforms
from backend.sensors import entropy_varentropy, healthy_rows, surprisal_at_one
from backend.steps import forward, prepare
from controllers.certificates import require_target
from controllers.compose import Shadow
from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from kernels.page_select.naive import Pins


@dataclass(slots=True)
class Live:
    """What the executor holds for one request."""

    request: Request
    tokens: list[int]  # prompt, then generated

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.request.prompt_tokens


@dataclass(frozen=True, slots=True)
class Sampled:
    """Device-side numbers of one step's sampled rows, each ``[S]``."""

    tokens: Tensor
    healthy: Tensor
    command: Tensor
    h_applied: Tensor
    surprisal: Tensor


class Recorder(Protocol):
    """A witness of a step: sees rows before the pass, pages during it and logits after it."""

    page_observer: PageObserver | None

    def before(
        self, executor: LiveExecutor, rows: Sequence[Row], pages: Mapping[int, list[int]]
    ) -> None:
        """Run what-if passes, before the real pass writes the cache."""
        ...

    def after(
        self, executor: LiveExecutor, rows: Sequence[Row], logits: Tensor, result: Result
    ) -> None:
        """Record the step's sampled rows from their logits ``[S, n]``."""
        ...


@dataclass(slots=True)
class LiveExecutor:
    """Runs plans on a Hugging Face decoder with our paged cache; implements ``Executor``."""

    loaded: LoadedModel
    preset: Preset
    limits: EngineLimits
    t_cal: float = 1.0
    pins: Pins = field(default_factory=Pins)
    recorder: Recorder | None = None
    ignore_stop: bool = False  # go on past stop tokens, for runs of fixed length
    cache: PagedCache = field(init=False)
    lanes: LaneTable = field(init=False)
    cuts: Cuts = field(init=False)
    live: dict[int, Live] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Allocate the KV cache that the limits ask for."""
        self.cache = PagedCache(
            layers=self.loaded.layers,
            kv_heads=self.loaded.kv_heads,
            head_dim=self.loaded.head_dim,
            n_pages=self.limits.n_pages,
            page_tokens=self.limits.page_tokens,
        )
        self.lanes = LaneTable(self.preset.temperature, torch.zeros(1))
        self.cuts = Cuts(self.preset.stages)

    def add(self, request: Request, prompt: Sequence[int]) -> None:
        """Register a request's prompt ids; before the loop plans it."""
        if len(prompt) != request.prompt_tokens:
            raise ValueError(
                f"prompt_tokens must be the prompt's length {len(prompt)}; "
                f"got prompt_tokens={request.prompt_tokens}"
            )
        vocabulary = self.loaded.vocabulary
        require_target(request.target_nats, vocabulary)
        strange = [token for token in prompt if not 0 <= token < vocabulary]
        if strange:
            raise ValueError(f"prompt tokens must lie in [0, {vocabulary}); got {strange[0]}")
        self.lanes.add(request)  # first, for it refuses an id that is in use
        self.cuts.add(request)
        self.live[request.request_id] = Live(request, list(prompt))

    def disable(self, request_id: int) -> None:
        """Return a request to its own temperature from the next step on."""
        self.lanes.disable(request_id)

    def generated(self, request_id: int) -> list[int]:
        """Return the tokens generated so far for a request that is still held."""
        held = self.live[request_id]
        return held.tokens[held.request.prompt_tokens :]

    def release(self, request_id: int) -> None:
        """Forget a finished request and its law state."""
        self.live.pop(request_id, None)
        self.lanes.release(request_id)
        self.cuts.release(request_id)

    @torch.no_grad()
    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run one step and sample; rows with non-finite logits finish alone, with that reason."""
        started = time.perf_counter_ns()
        if self.recorder is not None:
            self.recorder.before(self, plan.rows, pages)
        observer = None if self.recorder is None else self.recorder.page_observer
        step = prepare(plan.rows, pages, self.cache, self.pins, observer=observer)
        logits = forward(self.loaded.model, self.tokens_of(plan.rows), plan.rows, step)
        held = [self.live[row.request_id] for row in plan.rows if row.samples]
        signals, shadow, drawn = self._sample(held, logits)
        tokens = self._accept(held, drawn)
        result = Result(
            step=plan.step,
            tokens=tokens,
            finished=self._finished(held, tokens),
            signals=TokenSignal(*(leaf.numpy() for leaf in signals)),
            commands=drawn.command.numpy(),
            h_applied=drawn.h_applied.numpy(),
            surprisal=drawn.surprisal.numpy(),
            page_units_read=step.page_units_read,
            page_units_dense=step.page_units_dense,
            pages_scored=step.pages_scored,
            duration_ns=max(1, time.perf_counter_ns() - started),
            shadow=None if shadow is None else shadow.numpy(),
        )
        if self.recorder is not None:
            self.recorder.after(self, plan.rows, logits, result)
        return result

    def tokens_of(self, rows: Sequence[Row]) -> list[int]:
        """Return the token ids the rows compute, flattened."""
        ids: list[int] = []
        for row in rows:
            ids.extend(self.live[row.request_id].tokens[row.start : row.start + row.n_tokens])
        return ids

    def _sample(
        self, held: list[Live], logits: Tensor
    ) -> tuple[TokenSignal, Tensor | None, Sampled]:
        law, slots = self.preset.temperature, self.lanes.slots(_ids(held))
        healthy = healthy_rows(logits)
        logits = torch.where(healthy[:, None], logits, 0.0)  # a failed row is measured as uniform
        state, last = self.lanes.read(slots)
        position = torch.tensor([float(live.generated) for live in held])
        signal = self._measure(last._replace(position=position), law.x_in(state), logits)
        state, command = law.update(state, signal)
        greedy = torch.tensor([live.request.greedy for live in held], dtype=torch.bool)
        noise = uniforms([live.request.seed for live in held], [live.generated for live in held])
        row, x = self.cuts.row(_ids(held), logits, signal, command)
        tokens = sample(row, x, greedy, noise)
        self.cuts.keep(torch.where(healthy, tokens, -1))
        surprisal = surprisal_at_one(logits, tokens)
        self.lanes.write_state(slots, state)
        self.lanes.write_surprisal(slots, surprisal)
        shadow = law.shadow_command(state) if isinstance(law, Shadow) else None
        h_applied, _ = entropy_varentropy(logits, command)
        return signal, shadow, Sampled(tokens, healthy, command, h_applied, surprisal)

    def _measure(self, signal: TokenSignal, x_in: Tensor, logits: Tensor) -> TokenSignal:
        h_cal, v_cal = entropy_varentropy(logits, torch.full_like(x_in, math.log(self.t_cal)))
        h_in, v_in = entropy_varentropy(logits, x_in)
        return signal._replace(h_cal=h_cal, v_cal=v_cal, h_in=h_in, v_in=v_in)

    def _accept(self, held: list[Live], drawn: Sampled) -> tuple[int, ...]:
        tokens = torch.where(drawn.healthy, drawn.tokens, -1).tolist()
        for live, token in zip(held, tokens, strict=True):
            if token >= 0:
                live.tokens.append(token)
        return tuple(tokens)

    def _finished(self, held: list[Live], tokens: tuple[int, ...]) -> dict[int, str]:
        reasons = {}
        for live, token in zip(held, tokens, strict=True):
            if token < 0:
                reasons[live.request.request_id] = "nonfinite_logits"
            elif token in self.loaded.stop_ids and not self.ignore_stop:
                reasons[live.request.request_id] = "stop"
        return reasons


def _ids(held: list[Live]) -> tuple[int, ...]:
    return tuple(live.request.request_id for live in held)
