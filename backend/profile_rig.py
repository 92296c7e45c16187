"""A live engine whose steps are staged: contexts are put in place, then real steps are timed.

A step's price is what the serving loop takes for it: from when it is planned to when the next one
is, with execution, bookkeeping and delivery to readers, each in a thread of its own. Prompts are
not computed to get to a context: the cache holds the keys and values of a real text, repeated, and
the loop is told that the prompt was computed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from backend.channel import Channel
from backend.engine import Engine
from backend.models import LoadedModel
from backend.profile_stage import Stage, Step, step_of
from backend.sparse import SparseAttention
from backend.stops import Reply
from backend.ticket import Ticket
from backend.worker import Worker
from controllers.core import TokenSignal
from controllers.coverage import FixedCoverage
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

TEMPERATURE = 0.8
DEADLINE_S = 600.0  # of one stage, which takes seconds
_ANY_LAW = StepLaw(
    base_s=1e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-8,
    per_prompt_token_s=1e-5,
    per_prompt_square_s=1e-9,
)


class Rig:
    """An engine, its worker, and the steps it has taken; a context manager that stops them.

    Works on any device: a step's result is on the host before the next one is planned.
    """

    def __init__(self, loaded: LoadedModel, limits: EngineLimits) -> None:
        self._loaded, self._limits = loaded, limits
        self._preset = get_preset("baseline")
        self._engine = Engine(
            loaded, self._preset, limits, _ANY_LAW, sparse=SparseAttention(min_pages=1)
        )
        self._ids = itertools.count()
        self._seen: list[tuple[Plan, Result]] = []
        self._wanted = self._ended_ns = 0
        self._over = threading.Event()
        self._faults: list[Exception] = []
        self._worker: Worker | None = None

    def _awake(self) -> Worker:
        """Return the worker, a new one after a rest."""
        if self._worker is not None:
            return self._worker
        worker = self._worker = Worker(self._engine)
        noted = self._engine.on_step
        assert noted is not None, "the worker listens to its engine"

        def both(plan: Plan, result: Result) -> None:
            noted(plan, result)
            self._seen.append((plan, result))
            if len(self._seen) == self._wanted:
                worker.between_steps(lambda engine: self._end(worker, engine))

        self._engine.on_step = both
        return worker

    def rest(self) -> None:
        """End the serving thread until the next stage: its team would slow down other engines."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rest()

    def fill(self, prompt: Sequence[int]) -> None:
        """Compute ``prompt`` and put copies of its keys and values in every page of the cache."""
        size, cache = self._limits.page_tokens, self._engine.executor.cache
        pages = min(len(prompt) // size, cache.n_pages)
        held = prompt[: pages * size]
        request = Request(request_id=next(self._ids), prompt_tokens=len(held), max_tokens=1)
        executor, table = self._engine.executor, {request.request_id: list(range(pages))}
        executor.add(request, held)
        for start in range(0, len(held), self._limits.token_budget):
            n = min(self._limits.token_budget, len(held) - start)
            row = Row(request.request_id, start, n, start + n == len(held), 1.0, False)
            executor.execute(Plan(0, (row,)), table)
        executor.release(request.request_id)
        for layer in range(self._loaded.layers):
            for store in (*cache.layer_pages(layer), *cache.stats[layer]):
                for first in range(pages, cache.n_pages, pages):
                    last = min(first + pages, cache.n_pages)
                    store[:, first:last] = store[:, : last - first]

    def time(self, stage: Stage) -> list[Step]:
        """Take the steps of ``stage`` and return them, in order."""
        steps = 1 if stage.chunk else stage.steps
        made_up = sum(stage.contexts) // stage.token_budget + len(stage.contexts) + 2
        rows = [self._ticket(c, steps + made_up) for c in stage.contexts]
        late = [self._ticket(stage.start + stage.chunk, 3)] if stage.chunk else []
        tickets = [*rows, *late]
        self._seen, self._wanted = [], steps
        self._over.clear()
        gate, worker = threading.Event(), self._awake()
        worker.between_steps(lambda _: gate.wait())
        worker.between_steps(lambda engine: self._open(engine, stage))
        worker.submit(rows)
        worker.between_steps(lambda engine: _skip(engine, len(rows)))
        if late:
            worker.submit(late)
            if stage.start:
                worker.between_steps(_pretend)
        readers = [threading.Thread(target=self._read, args=(t.channel,)) for t in tickets]
        for reader in readers:
            reader.start()
        gate.set()
        in_time = self._over.wait(DEADLINE_S)
        for ticket in tickets:
            worker.cancel(ticket.request.request_id)
        for reader in readers:
            reader.join()
        if self._faults:
            raise self._faults.pop()
        if not in_time:
            raise RuntimeError(f"a stage took longer than {DEADLINE_S:g} s: {stage}")
        return self._steps()

    def _open(self, engine: Engine, stage: Stage) -> None:
        preset = self._preset
        if stage.coverage < 1.0:
            law = FixedCoverage(coverage=stage.coverage)
            preset = replace(preset, coverage=law, sparse_min_context=1, probe_every=0)
        budget = max(stage.token_budget, self._limits.max_seqs)
        engine.loop = ServingLoop(replace(self._limits, token_budget=budget), preset, _ANY_LAW)

    def _end(self, worker: Worker, engine: Engine) -> None:
        """Note when the next step would be planned, and have nothing more run."""
        self._ended_ns = engine.now_ns()
        for request_id in engine.loop.sequences:
            worker.cancel(request_id)
        self._over.set()

    def _read(self, channel: Channel) -> None:
        try:
            while channel.get() is not None:
                pass
        except Exception as error:  # whoever times the stage is told
            self._faults.append(error)
            self._over.set()

    def _ticket(self, context: int, max_tokens: int) -> Ticket:
        vocabulary = self._loaded.vocabulary
        request = Request(
            request_id=next(self._ids),
            prompt_tokens=context,
            max_tokens=max_tokens,
            temperature=TEMPERATURE,
        )
        return Ticket(
            request=request,
            prompt=tuple((97 * i + context) % vocabulary for i in range(context)),
            reply=Reply(self._decode),
            channel=Channel(max_tokens + 1),
            arrived_ns=self._engine.now_ns(),
            streams=True,
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._loaded.tokenizer.decode(tokens, skip_special_tokens=True)

    def _steps(self) -> list[Step]:
        table = self._engine.ledger.steps
        pairs = zip(table["step"].tolist(), table["now_ns"].tolist(), strict=True)
        began = dict(pairs)
        starts = [began[plan.step] for plan, _ in self._seen]
        return [
            step_of(plan, result, (after - start) / 1e9)
            for (plan, result), start, after in zip(
                self._seen, starts, [*starts[1:], self._ended_ns], strict=True
            )
        ]


def _skip(engine: Engine, n_rows: int) -> None:
    """Tell the loop that the prompts of the first ``n_rows`` requests were computed."""
    waiting = n_rows
    while waiting:
        waiting -= _pretend(engine)


def _pretend(engine: Engine) -> int:
    """Have one planned step made up; return how many requests got their first token by it."""
    plan = engine.loop.plan(engine.now_ns())
    first = 0
    for row in plan.rows:
        live = engine.executor.live[row.request_id]
        engine.executor.surprisal.adopt([row], {})
        if row.samples:
            first += not live.generated
            live.tokens.append(0)
    engine.loop.observe(_made_up(plan), engine.now_ns())
    return first


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
