"""Typed errors of the live backend; the text of each is one line.

What the caller got wrong is a ``ValueError``; what happened to a correct call is a
``ServingError``.
"""

from __future__ import annotations

import copy


class UnsupportedModel(ValueError):
    """A model whose attention, or what stands beside it, we cannot serve exactly."""


class RequestTooLong(ValueError):
    """A request longer than the model's context or than the whole KV pool."""


class OutOfMemory(ValueError):
    """A KV pool larger than the memory that is free; refused before it is allocated."""


class ServingError(RuntimeError):
    """Something that happened to a request that was right."""


class Overloaded(ServingError):
    """A request that came while the queue was full; nothing of it was kept."""


class Abandoned(ServingError):
    """A stream nobody read: its buffer ran over and its request was cancelled."""


class Closed(ServingError):
    """A call after ``close``, or a request that ``close`` cut off."""


class AlreadyRead(ServingError):
    """A second coroutine that waits for a stream's next delta; the first reads on."""


class EngineFault(ServingError):
    """A step that raised; the requests in it failed and gave back their pages.

    ``request_ids`` names them. The engine serves on, unless ``fatal``.
    """

    def __init__(
        self, text: str, *, request_ids: tuple[int, ...] = (), fatal: bool = False
    ) -> None:
        super().__init__(text)
        self.request_ids = request_ids
        self.fatal = fatal


def afresh(error: Exception) -> Exception:
    """Return an equal error to raise, with the same cause.

    An error that is raised again and again gathers the frames of every time.
    """
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    return made
