"""A reply while it is generated: iterate over it in a thread or a coroutine, or walk away."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from backend.channel import Channel
from backend.errors import AlreadyRead
from backend.params import Delta, Output

ABANDONED = "abandoned"


class Stream:
    """Deltas of one request, for one reader, by ``for`` or ``async for``.

    The texts join to ``output.text``, which is there after the last delta. The request is cancelled
    and its pages are freed if the reader raises or is cancelled while it waits, leaves the
    ``with`` block, or drops the stream.

    Raises, while iterating:
        AlreadyRead: another coroutine waits for the next delta; its reading goes on.
        Abandoned: the buffer of unread deltas ran over.
        EngineFault: a step with this request in it raised.
        Closed: the engine was closed.
        ValueError: the engine refused the request.
    """

    def __init__(
        self, request_id: int, channel: Channel, cancel: Callable[[int, str], None], owner: object
    ) -> None:
        self.request_id = request_id
        self._channel = channel
        self._owner = owner  # an engine lives as long as its streams
        self._drop = weakref.finalize(self, cancel, request_id, ABANDONED)
        self._drop.atexit = False
        self._cancel = cancel

    @property
    def output(self) -> Output | None:
        """The finished reply; None before the end, and if an error ended it."""
        return self._channel.output

    def cancel(self) -> None:
        """Stop the request; what was buffered can still be read, then iteration ends."""
        if self._drop.detach() is not None:
            self._cancel(self.request_id, "cancelled")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        try:
            delta = self._channel.get()
        except BaseException:
            self.cancel()
            raise
        if delta is None:
            self._drop.detach()
            raise StopIteration
        return delta

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = await self._channel.get_async()
        except AlreadyRead:
            raise  # the request belongs to the reader that was first
        except BaseException:
            self.cancel()
            raise
        if delta is None:
            self._drop.detach()
            raise StopAsyncIteration
        return delta

    async def aclose(self) -> None:
        """Cancel the request unless it is over, as leaving ``async with`` does."""
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()
