"""What control costs: the share of a decode step that goes into what ``baseline`` does without.

Timed inside real steps of a full batch: row statistics, the law, its lanes, the surprisal of
tokens, and what a preset's loop takes beyond ``baseline``'s. Page scoring and selection are stated
apart, for they buy pages not read. The cache holds random keys and values, so no prompt has to be
computed; the arithmetic of a decode step does not depend on what they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from backend.pagechoice import choose
from backend.setup import PAGE_TOKENS
from backend.sparse import SparseAttention
from backend.steps import prepare
from backend.stopwatch import Laps
from controllers.core import TokenSignal, require
from controllers.presets import Preset, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

CONTROL = ("statistics", "law", "lanes", "token surprisal")
WARMUP = 3  # steps not counted
_ANY_LENGTH = SparseAttention(min_pages=1)  # selection is priced, however short the rows
_ANY_LAW = StepLaw(
    base_s=1e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-8,
    per_prompt_token_s=1e-5,
    per_prompt_square_s=1e-9,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where some of a decode step goes."""

    part: str
    seconds: float  # least over the steps: other work on the machine only adds
    share: float  # of the step
    control: bool  # counted as control overhead


def control_overhead(
    loaded: LoadedModel,
    *,
    preset: str = "full",
    batch: int = 16,
    context: int = 2048,
    steps: int = 30,
    coverage: float = 0.95,
) -> list[Part]:
    """Break a decode step of ``preset`` down, densely attended, and price its page selection.

    Args:
        batch: rows, all decoding; context: tokens each; steps: timed steps of either preset.
        coverage: what the selection is asked for; its row is stated apart.

    Returns:
        The step, its parts, ``control`` (the sum of the parts marked so) and the selection.
    """
    require(steps >= 1, "steps must be >= 1", steps=steps)
    require(batch >= 1, "batch must be >= 1", batch=batch)
    require(context >= 1, "context must be >= 1", context=context)
    require(0.0 < coverage < 1.0, "coverage must lie in (0, 1)", coverage=coverage)
    dense = {"sparse_min_context": 2**30, "quantum_tokens": None}  # attention is not the question
    presets = [replace(get_preset(name), **dense) for name in ("baseline", preset)]
    plain, _ = _Run(loaded, presets[0], batch, context, steps).timed()
    run = _Run(loaded, presets[1], batch, context, steps)
    seconds, whole = run.timed()
    beyond = max(0.0, seconds["loop"] - plain["loop"])
    seconds["loop"] -= beyond
    control = {name: seconds.pop(name) for name in CONTROL} | {"loop beyond baseline": beyond}
    return [
        _part("step", whole, whole),
        *(_part(name, spent, whole) for name, spent in seconds.items()),
        *(_part(name, spent, whole, control=True) for name, spent in control.items()),
        _part("control", sum(control.values()), whole, control=True),
        _part(f"page selection at {coverage:g}", run.selection(coverage), whole),
    ]


def _part(name: str, seconds: float, whole: float, *, control: bool = False) -> Part:
    return Part(part=name, seconds=seconds, share=seconds / whole, control=control)


class _Run:
    """One preset's loop and executor, its requests past their prompts."""

    def __init__(
        self, loaded: LoadedModel, preset: Preset, batch: int, context: int, steps: int
    ) -> None:
        tokens = WARMUP + steps + 2  # one more than is timed: the selection needs live rows
        limits = EngineLimits(
            max_seqs=batch,
            token_budget=batch * context,
            n_pages=batch * (-(-(context + tokens) // PAGE_TOKENS) + 1),
            page_tokens=PAGE_TOKENS,
            max_context=context + tokens,
        )
        self._steps, self._loaded, self._laps = steps, loaded, Laps()
        self._loop = ServingLoop(limits, preset, _ANY_LAW)
        self._executor = LiveExecutor(
            loaded,
            preset,
            limits,
            ignore_stop=True,
            stopwatch=self._laps,
            sparse=_ANY_LENGTH,
        )
        _fill(self._executor)
        prompt = np.random.default_rng(0).integers(0, loaded.vocabulary, context).tolist()
        for index in range(batch):
            request = Request(
                request_id=index, prompt_tokens=context, max_tokens=tokens, temperature=0.8
            )
            self._executor.add(request, prompt)
            self._loop.submit(request, 0)
        self._skip_prompts()

    def timed(self) -> tuple[dict[str, float], float]:
        """Return the least seconds by part over the timed steps, and those of the whole step."""
        taken = [self._step() for _ in range(WARMUP + self._steps)][WARMUP:]
        whole = min(total for _, total in taken)
        return {name: min(p[name] for p, _ in taken) for name in taken[0][0]}, whole

    def selection(self, coverage: float) -> float:
        """Return the least seconds in which all layers score and select pages for the batch.

        Each layer in a call of its own. A layer that is compiled whole does the same work within
        its one call, for less: this is a bound from above.
        """
        plan = self._loop.plan(time.perf_counter_ns())
        rows = [row._replace(coverage=coverage) for row in plan.rows]
        executor = self._executor
        step = prepare(
            rows, self._loop.pages(plan), executor.cache, executor.pins, sparse=_ANY_LENGTH
        )
        assert step.decode is not None
        pruned = step.decode.pruned
        if pruned is None:  # rows so short that they run dense
            return 0.0
        model = self._loaded
        q = torch.randn(len(rows), model.kv_heads, model.heads // model.kv_heads, model.head_dim)
        taken = []
        for _ in range(WARMUP + self._steps):
            started = time.perf_counter()
            for layer in range(model.layers):
                choose(step, layer, pruned, q, model.head_dim**-0.5)
            taken.append(time.perf_counter() - started)
        return min(taken[WARMUP:])

    def _step(self) -> tuple[dict[str, float], float]:
        started = time.perf_counter()
        plan = self._loop.plan(time.perf_counter_ns())
        pages = self._loop.pages(plan)
        planned = time.perf_counter()
        result = self._executor.execute(plan, pages)
        executed = time.perf_counter()
        self._loop.observe(result, time.perf_counter_ns())
        done = time.perf_counter()
        return self._laps.take() | {"loop": planned - started + done - executed}, done - started

    def _skip_prompts(self) -> None:
        """Pretend that the prompts were computed and every request got its first token."""
        plan = self._loop.plan(time.perf_counter_ns())
        assert all(row.samples for row in plan.rows), "the budget holds every prompt"
        for row in plan.rows:
            self._executor.live[row.request_id].tokens.append(0)
            self._executor.surprisal.adopt([row], {})
        self._loop.observe(_made_up(plan), time.perf_counter_ns())


def _fill(executor: LiveExecutor) -> None:
    cache, generator = executor.cache, torch.Generator().manual_seed(0)
    for store in (cache.k, cache.v):
        store[0].normal_(generator=generator)
        store[1:] = store[0]
    for mean, variance in cache.stats:
        mean.normal_(generator=generator).mul_(0.3)
        variance.fill_(1.0)


def _made_up(plan: Plan) -> Result:
    lanes = len(plan.sampled)
    zeros = np.zeros(lanes, np.float32)
    return Result(
        step=plan.step,
        tokens=(0,) * lanes,
        finished={},
        signals=TokenSignal(*[zeros] * len(TokenSignal._fields)),
        commands=zeros,
        h_applied=zeros,
        surprisal=zeros,
        page_units_read=0,
        page_units_dense=0,
        duration_ns=1,
    )
