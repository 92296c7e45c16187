"""How a reply travels from the engine's thread to whoever reads it, in a thread or a coroutine."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from backend.errors import AlreadyRead, afresh
from backend.params import Delta, Output


class Channel:
    """Deltas of one request and how it ended: one writer, one reader, a bounded buffer.

    The writer never waits: a full buffer, or a reader whose event loop has closed, is told by
    ``put``. The reader gets what is buffered before it hears of the end.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._buffer: deque[Delta] = deque()
        self._end: Output | Exception | None = None
        self._changed = threading.Condition()
        self._sleeper: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the request is over, though deltas may still be buffered."""
        return self._end is not None

    @property
    def output(self) -> Output | None:
        """The finished reply; None before the end and after an error."""
        return self._end if isinstance(self._end, Output) else None

    def put(self, delta: Delta) -> bool:
        """Buffer a delta; False, and nothing kept, if nobody is going to read it."""
        with self._changed:
            if len(self._buffer) >= self._capacity:
                return False
            self._buffer.append(delta)
            return self._wake()

    def close(self, end: Output | Exception) -> None:
        """Say how the request ended; only the first call counts."""
        with self._changed:
            if self._end is None:
                self._end = end
            self._wake()

    def get(self) -> Delta | None:
        """Wait for the next delta; None at the end, or the error that ended it is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._end is not None)
            return self._buffer.popleft() if self._buffer else self._ended()

    async def get_async(self) -> Delta | None:
        """Await the next delta; as :meth:`get`. Raises ``AlreadyRead`` while another awaits it."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._buffer:
                    return self._buffer.popleft()
                if self._end is not None:
                    return self._ended()
                if self._sleeper is not None:
                    raise AlreadyRead("the stream has a reader that waits for its next delta")
                woken = loop.create_future()
                sleeper = self._sleeper = (loop, woken)
            try:
                await woken
            finally:
                with self._changed:
                    if self._sleeper is sleeper:  # cancelled: nobody waits any more
                        self._sleeper = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return whether it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self._end is not None, timeout_s)

    def result(self) -> Output:
        """Return the finished reply of a channel that has ended, or raise what ended it."""
        if isinstance(self._end, Exception):
            raise afresh(self._end)
        if self._end is None:
            raise RuntimeError("the request is still running")
        return self._end

    def _ended(self) -> None:
        if isinstance(self._end, Exception):
            raise afresh(self._end)

    def _wake(self) -> bool:
        """Wake the reader; False if its event loop is gone."""
        self._changed.notify_all()
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None:
            return True
        loop, woken = sleeper
        try:
            loop.call_soon_threadsafe(_set, woken)
        except RuntimeError:  # closed
            return False
        return True


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
