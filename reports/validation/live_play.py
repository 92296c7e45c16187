"""Play requests against the live engine in wall time: submit when due, read the stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from backend.channel import Channel
from backend.engine import Engine
from backend.models import LoadedModel
from backend.sparse import SparseAttention
from backend.stops import Reply
from backend.ticket import Ticket
from backend.worker import Worker
from controllers.preset import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from controllers.serving.rows import LogRow
from controllers.serving.runlog import CommandParity, PlanParity, replay_commands, replay_plans
from controllers.steplaw import StepLaw
from reports.validation.live_load import Asked, LiveError

LEAD_S = 0.2  # from the start of a run to its first arrival
WARM_TOKENS = 128  # computed before a run, for a server in use has computed some
WARM_DEADLINE_S = 600.0
CLOCK_TOLERANCE_S = 0.1  # the wall clock may drift by so much against the monotonic one
Text = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run is served on."""

    loaded: LoadedModel
    limits: EngineLimits
    step_law: StepLaw  # prices work for the macro law
    sparse_from: int  # tokens from which pages are chosen, as the presets of the campaign say

    def engine(self, preset: Preset, log: list[LogRow] | None = None) -> Engine:
        """Return a fresh engine whose pool has been written once, as that of a server in use."""
        engine = Engine(
            self.loaded,
            preset,
            self.limits,
            self.step_law,
            sink=None if log is None else log.append,
            sparse=SparseAttention(min_pages=max(1, self.sparse_from // self.limits.page_tokens)),
        )
        for store in (engine.executor.cache.k, engine.executor.cache.v):
            store.fill_(0.0)
        return engine


@dataclass(slots=True)
class Reader:
    """Reads one stream to its end and notes when its first token came."""

    channel: Channel
    thread: threading.Thread = field(init=False)
    first_s: float = float("nan")
    error: Exception | None = None

    def __post_init__(self) -> None:
        """Begin to read."""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            while self.channel.get() is not None:
                if self.first_s != self.first_s:
                    self.first_s = time.perf_counter()
        except Exception as error:
            self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a run left behind."""

    ledger: Ledger
    client_ttft_s: np.ndarray  # [R], in order of arrival: from when a request was due
    late_s: float  # the most that a request was submitted after it was due
    clock_s: float  # how far the wall clock moved against the monotonic one
    plans: PlanParity
    commands: CommandParity


def play(
    machine: Machine,
    preset: Preset,
    asked: Sequence[Asked],
    prompts: Text,
    *,
    clock_tolerance_s: float = CLOCK_TOLERANCE_S,
) -> Played:
    """Serve ``asked`` as they fall due; the log of the run is replayed when it is over.

    Latencies count from when a request is due, so a client that is late hides nothing.

    Raises:
        LiveError: a request ended otherwise than by its length, or the clock jumped.
    """
    log: list[LogRow] = []
    engine = machine.engine(preset, log)
    worker = Worker(engine)
    readers: list[Reader] = []
    late = 0.0
    try:
        _warm(worker, prompts[0][:WARM_TOKENS])
        before = _clocks()
        origin_ns = engine.now_ns() + round(LEAD_S * 1e9)
        origin_s = (origin_ns + _zero_ns(engine)) / 1e9
        for at_s, group in groupby(zip(asked, prompts, strict=True), key=lambda pair: pair[0].at_s):
            tickets = [_ticket(machine.loaded, each, text, origin_ns) for each, text in group]
            while (left := origin_s + at_s - time.perf_counter()) > 0.0:
                time.sleep(left)
            late = max(late, -left)
            readers += [Reader(ticket.channel) for ticket in tickets]
            worker.submit(tickets)
        for reader in readers:
            reader.thread.join()
    finally:
        worker.stop()
    moved = abs(_clocks() - before)
    if moved > clock_tolerance_s:
        raise LiveError(
            f"clock: wall and monotonic time must stay within {clock_tolerance_s:g} s of each "
            f"other during a run; they moved apart by {moved:.3g} s"
        )
    _require_whole(readers, engine.ledger)
    first = np.array([reader.first_s for reader in readers])
    due = origin_s + np.array([each.at_s for each in asked])
    return Played(
        ledger=engine.ledger,
        client_ttft_s=first - due,
        late_s=late,
        clock_s=moved,
        plans=replay_plans(log, preset),
        commands=replay_commands(log, preset),
    )


def _warm(worker: Worker, prompt: Sequence[int]) -> None:
    """Have the serving thread compute a prompt that is part of no run.

    The first step of a new thread on a fresh engine takes half as long again as any later one, and
    whoever queues behind it waits too; a server in use has it behind itself.
    """
    over = threading.Event()

    def compute(engine: Engine) -> None:
        executor, size = engine.executor, engine.limits.page_tokens
        request = Request(request_id=1 << 40, prompt_tokens=len(prompt), max_tokens=1)
        executor.add(request, prompt)
        for start in range(0, len(prompt), engine.limits.token_budget):
            n = min(engine.limits.token_budget, len(prompt) - start)
            row = Row(request.request_id, start, n, start + n == len(prompt), 1.0, False)
            pages = list(range(-(-len(prompt) // size)))
            executor.execute(Plan(0, (row,)), {request.request_id: pages})
        executor.release(request.request_id)
        over.set()

    worker.submit([])  # starts its thread
    worker.between_steps(compute)
    if not over.wait(WARM_DEADLINE_S):
        raise LiveError(f"the engine took longer than {WARM_DEADLINE_S:g} s for its first step")


def _ticket(loaded: LoadedModel, each: Asked, prompt: Sequence[int], origin_ns: int) -> Ticket:
    return Ticket(
        request=each.request,
        prompt=tuple(prompt),
        reply=Reply(lambda ids: loaded.tokenizer.decode(ids, skip_special_tokens=True)),
        channel=Channel(2 * each.request.max_tokens),
        arrived_ns=origin_ns + round(each.at_s * 1e9),
        streams=True,
    )


def _zero_ns(engine: Engine) -> int:
    """Return when the engine's clock was zero, on this process's performance counter.

    The largest of a few readings: a pause between the two clocks makes one smaller.
    """
    return max(time.perf_counter_ns() - engine.now_ns() for _ in range(5))


def _clocks() -> float:
    """Return seconds by which the wall clock is ahead of the monotonic one."""
    return (time.time_ns() - time.monotonic_ns()) / 1e9


def _require_whole(readers: Sequence[Reader], ledger: Ledger) -> None:
    for reader in readers:
        if reader.error is not None:
            raise LiveError(f"a request ended with {reader.error}") from reader.error
    for request_id, row in ledger.row_of.items():
        if ledger.reasons[row] != "length":
            raise LiveError(
                f"request {request_id} must end by its length; it ended by {ledger.reasons[row]}"
            )
