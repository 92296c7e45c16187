"""The thread that owns an engine: requests and commands in through a queue, deltas out."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from backend.engine import Engine, Generation
from backend.errors import Abandoned, Closed, EngineFault, Overloaded, afresh
from backend.params import Output
from backend.teams import release_team
from backend.ticket import Ticket
from controllers.serving.ledger import CANCELLED
from controllers.serving.messages import Plan, Result


class Worker:
    """Steps an engine in a thread of its own for as long as there is work.

    Every method may be called from any thread; they post commands, which take effect between two
    steps. At most ``max_seqs + max_waiting`` requests are held; None is no bound.
    """

    def __init__(self, engine: Engine, *, max_waiting: int | None = None) -> None:
        self._engine = engine
        self._most = None if max_waiting is None else engine.limits.max_seqs + max_waiting
        self._tickets: dict[int, Ticket] = {}
        self._lock = threading.Lock()  # of the tickets and of what refuses new ones
        self._refusal: Exception | None = None
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: tuple[Plan, Result] | None = None
        engine.on_step = self._note
        release_team()  # of the thread that loaded the model, which steps no more

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Queue requests, all or none, in order.

        Raises:
            Overloaded: there is no room for all of them.
            Closed, EngineFault: the engine has been closed, or died of a fault.
        """
        with self._lock:
            if self._refusal is not None:
                raise afresh(self._refusal)
            held = len(self._tickets) + len(tickets)
            if self._most is not None and held > self._most:
                raise Overloaded(f"queue is full: at most {self._most} requests; got {held}")
            self._tickets |= {ticket.request.request_id: ticket for ticket in tickets}
            if self._thread is None:
                release_team()
                self._thread = threading.Thread(target=self._run, name="entropic", daemon=True)
                self._thread.start()
        self._inbox.put(lambda: self._admit(tickets))

    def cancel(self, request_id: int, reason: str = CANCELLED) -> None:
        """Stop a request and free its pages; one that is over is left alone."""
        self._inbox.put(lambda: self._cancel(request_id, reason))

    def disable(self, request_id: int) -> None:
        """Return a request to baseline control from its next step on."""
        self._inbox.put(lambda: self._engine.disable(request_id))

    def disable_all(self) -> None:
        """Return every request, now and later, to baseline control."""
        self._inbox.put(self._engine.disable_all)

    def between_steps(self, command: Callable[[Engine], object]) -> None:
        """Run ``command`` on the engine before its next step, after what was posted earlier."""

        def run() -> None:
            command(self._engine)

        self._inbox.put(run)

    def stop(self) -> None:
        """Cut off what still runs and end the thread; again is harmless.

        Interrupts are ignored until the step under way is over: an interpreter that goes while
        a thread is inside a kernel aborts.
        """
        with _uninterrupted():
            with self._lock:
                self._refusal = self._refusal or Closed("the engine is closed")
                thread = self._thread
            self._inbox.put(None)
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        torch.get_num_threads()  # a new thread takes over torch's setting only when it asks
        try:
            while self._turn():
                pass
            end: Exception = Closed("the engine was closed while the request ran")
        except Exception as error:  # of the control plane: no state is known to be sound
            end = EngineFault(f"the engine died: {_line(error)}", fatal=True)
            end.__cause__ = error
        with self._lock:
            self._refusal = self._refusal or end
            left = list(self._tickets.values())
            self._tickets.clear()
        for ticket in left:
            ticket.channel.close(end)

    def _turn(self) -> bool:
        while not self._inbox.empty() or not self._engine.loop.has_work:
            command = self._inbox.get()
            if command is None:
                return False
            command()
        self._last = None
        try:
            self._engine.step()
        except EngineFault as fault:
            self._fail(fault)
        self._deliver()
        return True

    def _note(self, plan: Plan, result: Result) -> None:
        self._last = (plan, result)

    def _admit(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            request_id = ticket.request.request_id
            if request_id not in self._tickets:
                continue
            try:
                self._engine.submit(
                    ticket.request, ticket.prompt, arrived_ns=ticket.arrived_ns, reply=ticket.reply
                )
            except ValueError as error:
                self._withdraw(request_id)
                self._close(request_id, error.with_traceback(None))
            except Exception as error:  # whatever it is, the others are sound
                self._withdraw(request_id)
                text = f"request {request_id} was not taken: {_line(error)}"
                fault = EngineFault(text, request_ids=(request_id,))
                fault.__cause__ = error
                self._close(request_id, fault)

    def _withdraw(self, request_id: int) -> None:
        """Take back what an admission that raised has left of a request."""
        self._engine.loop.cancel(request_id, self._engine.now_ns())
        self._engine.executor.release(request_id)

    def _cancel(self, request_id: int, reason: str) -> None:
        self._engine.cancel(request_id)
        generation = self._engine.done.pop(request_id, None)
        if generation is not None:
            self._finish(generation, reason)

    def _fail(self, fault: EngineFault) -> None:
        for request_id in fault.request_ids:
            self._engine.done.pop(request_id, None)
            self._close(request_id, fault)

    def _deliver(self) -> None:
        """Hand out the tokens of the step just taken, then what finished with it."""
        if self._last is None:
            return
        plan, result = self._last
        coverage = {row.request_id: row.coverage for row in plan.rows}
        for lane, request_id in enumerate(plan.sampled):
            ticket = self._tickets.get(request_id)
            if ticket is None or result.tokens[lane] < 0:
                continue
            shadow = self._engine.shadow_coverage.get(request_id)
            delta = ticket.take(result, lane, coverage=coverage[request_id], shadow_coverage=shadow)
            if ticket.streams and not ticket.channel.put(delta):
                self._abandon(request_id)
        for request_id in list(self._engine.done):
            self._finish(self._engine.done.pop(request_id))

    def _abandon(self, request_id: int) -> None:
        self._engine.cancel(request_id)
        self._engine.done.pop(request_id, None)
        self._close(request_id, Abandoned(f"request {request_id}: nobody read its stream"))

    def _finish(self, generation: Generation, reason: str | None = None) -> None:
        request_id = generation.request.request_id
        ticket = self._tickets.get(request_id)
        if ticket is not None:
            reason = reason or generation.reason
            self._close(request_id, ticket.output(generation, self._engine.ledger, reason))

    def _close(self, request_id: int, end: Output | Exception) -> None:
        with self._lock:
            ticket = self._tickets.pop(request_id, None)
        if ticket is not None:
            ticket.channel.close(end)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT meanwhile, in the one thread that gets it."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    if before is None:  # another thread, or a handler that is not Python's
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
