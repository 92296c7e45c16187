"""What the progress watchdog sees of an array replica."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from controllers.serving.request import Sequence
from simulator.array_life import Life


class Unfinished(Collection[Sequence]):
    """The requests of all lives, the newest last: what the watchdog looks at, without a copy."""

    __slots__ = ("_lives",)

    def __init__(self, lives: dict[int, Life]) -> None:
        self._lives = lives

    def __len__(self) -> int:
        return len(self._lives)

    def __iter__(self) -> Iterator[Sequence]:
        return (life.sequence for life in self._lives.values())

    def __reversed__(self) -> Iterator[Sequence]:
        return (life.sequence for life in reversed(self._lives.values()))

    def __contains__(self, sequence: object) -> bool:
        return any(one is sequence for one in self)
