"""Where the time of a step goes, part by part; off, it costs a fraction of a microsecond."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Stopwatch(Protocol):
    """Whoever times the parts of a step."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Time what runs inside, under ``name``."""
        ...


class Silent:
    """The stopwatch of every run that is not being measured: it does nothing."""

    __slots__ = ("_nothing",)

    def __init__(self) -> None:
        self._nothing = nullcontext()

    def part(self, name: str) -> AbstractContextManager[None]:
        """Time nothing."""
        del name
        return self._nothing


class Laps:
    """Adds up the seconds of each part since the last ``take``."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what runs inside; parts may not nest under one name."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def take(self) -> dict[str, float]:
        """Return the seconds by part, and start again."""
        seconds, self._seconds = self._seconds, {}
        return seconds
