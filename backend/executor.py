"""The live executor: runs a plan on a model, decides temperatures inside the step, samples."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from backend.attention import PageObserver, StepInputs
from backend.cache import PagedCache
from backend.eviction import PageScores
from backend.models import LoadedModel
from backend.sampling import Sampled, Sampling
from backend.sparse import SparseAttention
from backend.steps import forward, prepare
from backend.stops import Reply
from backend.stopwatch import Silent, Stopwatch
from backend.surprisal import Head, PromptScore, TokenSurprisal
from backend.warmup import warm_up
from controllers.certificates import require_target
from controllers.core import TokenSignal, require
from controllers.presets import Preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.limits import OPTIONS, EngineLimits
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from kernels.page_select.naive import Pins


@dataclass(slots=True)
class Live:
    """What the executor holds for one request."""

    request: Request
    tokens: list[int]  # prompt, then generated
    reply: Reply | None = None  # its text and where it ends; None: the model's stop tokens end it

    @property
    def generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.request.prompt_tokens


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
    sparse: SparseAttention = field(default_factory=SparseAttention)
    recorder: Recorder | None = None
    ignore_stop: bool = False  # go on past stop tokens, for runs of fixed length
    score_prompts: bool = False  # also take the surprisal of each prompt token
    stopwatch: Stopwatch = field(default_factory=Silent)
    cache: PagedCache = field(init=False)
    sampling: Sampling = field(init=False)
    surprisal: TokenSurprisal = field(init=False)
    live: dict[int, Live] = field(init=False, default_factory=dict)
    scores: PageScores | None = field(init=False, default=None)  # where the preset evicts
    _head: Head | None = field(init=False)

    def __post_init__(self) -> None:
        """Allocate the KV cache that the limits ask for; options are for simulations alone."""
        for name in OPTIONS:  # KV kept by count says how much is left, not in which pages
            require(not getattr(self.limits, name), f"limits.{name} is simulated only", got=True)
        if self.preset.kv_budget_pages is not None:
            informed = self.sparse.measure_information
            self.scores = PageScores(self.limits.n_pages, informed=informed)
            self.sparse = replace(self.sparse, measure_masses=True)
        device = self.loaded.device
        self.cache = PagedCache(
            layers=self.loaded.layers,
            kv_heads=self.loaded.kv_heads,
            head_dim=self.loaded.head_dim,
            n_pages=self.limits.n_pages,
            page_tokens=self.limits.page_tokens,
            dtype=self.loaded.dtype,
            device=device,
            scorer=self.sparse.scorer,
        )
        if device.type == "cpu":
            warm_up(self.loaded, self.limits.page_tokens, self.sparse)
        self.sampling = Sampling(
            self.preset, t_cal=self.t_cal, device=device, stopwatch=self.stopwatch
        )
        self.surprisal = TokenSurprisal(self.cache)
        self._head = Head(self.loaded.model) if self.score_prompts else None

    def add(self, request: Request, prompt: Sequence[int], *, reply: Reply | None = None) -> None:
        """Register a request's prompt ids; before the loop plans it.

        With ``reply`` that alone decides which token ends the request.
        """
        self.check(request, prompt)
        self.sampling.add(request)  # first, for it refuses an id that is in use
        self.surprisal.add(request)
        self.live[request.request_id] = Live(request, list(prompt), reply)

    def check(self, request: Request, prompt: Sequence[int]) -> None:
        """Raise ``ValueError`` for a request this model cannot serve; changes nothing."""
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

    def disable(self, request_id: int) -> None:
        """Return a request to its own temperature from the next step on."""
        self.sampling.disable(request_id)

    @property
    def lanes(self) -> LaneTable:
        """The temperature law's lanes, one per request held."""
        return self.sampling.lanes

    def prompt_score(self, request_id: int) -> PromptScore:
        """Return the summed surprisal of the prompt tokens scored so far, and their number."""
        return self.surprisal.prompt(request_id)

    def generated(self, request_id: int) -> list[int]:
        """Return the tokens generated so far for a request that is still held."""
        held = self.live[request_id]
        return held.tokens[held.request.prompt_tokens :]

    def release(self, request_id: int) -> None:
        """Forget a finished request and its law state."""
        self.live.pop(request_id, None)
        self.sampling.release(request_id)
        self.surprisal.release(request_id)

    @torch.no_grad()
    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run one step and sample; rows with non-finite logits finish alone, with that reason."""
        started = time.perf_counter_ns()
        if self.recorder is not None:
            self.recorder.before(self, plan.rows, pages)
        observer = None if self.recorder is None else self.recorder.page_observer
        step = prepare(
            plan.rows, pages, self.cache, self.pins, sparse=self.sparse, observer=observer
        )
        logits = self._forward(plan.rows, pages, step)
        evicted = self._evict(plan.rows, pages, step)
        held = [self.live[row.request_id] for row in plan.rows if row.samples]
        drawn = self.sampling.step(
            [live.request for live in held], [live.generated for live in held], logits
        ).on_host()
        tokens = self._accept(held, drawn)
        result = Result(
            step=plan.step,
            tokens=tokens,
            finished=self._finished(held, tokens),
            signals=TokenSignal(*(leaf.numpy() for leaf in drawn.signal)),
            commands=drawn.command.numpy(),
            h_applied=drawn.h_applied.numpy(),
            surprisal=drawn.surprisal.numpy(),
            page_units_read=step.page_units_read,
            page_units_dense=step.page_units_dense,
            pages_scored=step.pages_scored,
            duration_ns=max(1, time.perf_counter_ns() - started),
            shadow=None if drawn.shadow is None else drawn.shadow.numpy(),
            evicted=evicted,
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

    def _forward(
        self, rows: Sequence[Row], pages: Mapping[int, list[int]], step: StepInputs
    ) -> Tensor:
        """Return the logits of the sampled rows; score prompt tokens on the way if asked."""
        model, tokens = self.loaded.model, self.tokens_of(rows)
        with self.stopwatch.part("token surprisal"):
            self.surprisal.adopt(rows, pages)
            self.surprisal.store(rows, step.slots)  # before the pass, whose attention may weigh it
        if self._head is None:
            with self.stopwatch.part("forward"):
                return forward(model, tokens, rows, step)
        with self.stopwatch.part("forward"), self._head.listening():
            logits = forward(model, tokens, rows, step)
        with self.stopwatch.part("prompt scores"):
            self._head.check(rows, logits)
            held = [self.live[row.request_id].tokens for row in rows]
            self.surprisal.score(rows, held, self._head)
            self.surprisal.store(rows, step.slots)
        return logits

    def _evict(
        self, rows: Sequence[Row], pages: Mapping[int, list[int]], step: StepInputs
    ) -> dict[int, tuple[int, ...]]:
        """Learn the step's page masses and choose what the loop wants given up."""
        if self.scores is None or step.mass is None:
            return {}
        with self.stopwatch.part("eviction"):
            self.scores.open_pages(rows, pages, self.limits.page_tokens)
            self.scores.observe(rows, pages, step.mass)
            return self.scores.evict(rows, pages)

    def _accept(self, held: list[Live], drawn: Sampled) -> tuple[int, ...]:
        tokens = drawn.tokens.tolist()
        positions = [len(live.tokens) for live in held]
        with self.stopwatch.part("token surprisal"):
            self.surprisal.sampled(_ids(held), positions, drawn.surprisal)
        for live, token in zip(held, tokens, strict=True):
            if token >= 0:
                live.tokens.append(token)
        return tuple(tokens)

    def _finished(self, held: list[Live], tokens: tuple[int, ...]) -> dict[int, str]:
        reasons = {}
        for live, token in zip(held, tokens, strict=True):
            if token < 0:
                reasons[live.request.request_id] = "nonfinite_logits"
            elif self._ends(live, token):
                reasons[live.request.request_id] = "stop"
        return reasons

    def _ends(self, live: Live, token: int) -> bool:
        if live.reply is not None:
            return live.reply.push(token)
        return token in self.loaded.stop_ids and not self.ignore_stop


def _ids(held: list[Live]) -> tuple[int, ...]:
    return tuple(live.request.request_id for live in held)
