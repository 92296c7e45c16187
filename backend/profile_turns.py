"""A profile's grid timed in turns, between other work, so that both share the machine's spells."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from backend.models import LoadedModel
from backend.profile import Measured, ProfileOptions, conclude, grid_of, header_of, order_of, staged
from backend.profile_rig import Rig
from backend.profile_stage import Step
from backend.profile_store import PassStore
from controllers.core import require

Open = Callable[[dict[str, object]], PassStore]


class Turns:
    """Passes over the grid in pieces; a context manager that gives back the rig and its memory.

    The stages come as in ``entropic profile run``: pass after pass, each in an order of its own,
    and a turn goes on where the last one stopped. A turn is stored as a pass that leaves out the
    stages it did not visit. ``options.repeats`` passes are spread over ``turns`` turns; further
    turns begin further passes.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        options: ProfileOptions,
        store: Open,
        *,
        turns: int,
        commit: str,
        versions: dict[str, str],
    ) -> None:
        require(turns >= 1, "turns must be >= 1", turns=turns)
        self._loaded, self._options, self._versions = loaded, options, versions
        self._grid = grid_of(loaded, options)
        self._commit = commit
        header = header_of(loaded, options, self._grid, commit=commit, versions=versions)
        self._store = store(dict(header))
        self._per_turn = -(-options.repeats * len(self._grid) // turns)
        self._open = ExitStack()
        self._rig: Rig | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._rig = None

    @property
    def visits(self) -> int:
        """Stages timed so far, each visit counted."""
        return sum(bool(steps) for taken in self._store.passes for steps in taken)

    @property
    def passes(self) -> int:
        """Whole passes over the grid so far: every stage was timed as often at least."""
        return self.visits // len(self._grid)

    def take(self) -> None:
        """Time the next stages and store them; the first of all is timed twice, once to warm up."""
        if self._rig is None:
            self._rig = self._open.enter_context(staged(self._loaded, self._options, self._grid))
        taken: list[list[Step]] = [[] for _ in self._grid]
        first, size = self.visits, len(self._grid)
        for place in range(first, first + min(self._per_turn, size)):
            index = order_of(self._options, size, place // size)[place % size]
            if place == first:
                self._rig.time(self._grid[index])
            if taken[index]:  # the next pass begins with a stage that ended this one
                break
            taken[index] = self._rig.time(self._grid[index])
        self._rig.rest()
        self._store.add(taken)

    def catch_up(self) -> None:
        """Take turns until every stage was timed as often as was asked for."""
        while self.passes < self._options.repeats:
            self.take()

    def measured(self, created: str) -> Measured:
        """Return the profile fitted to all turns."""
        how = (
            f"entropic validate: {len(self._grid)} stages, {self.visits:,} visits in "
            f"{len(self._store.passes)} turns between live runs"
        )
        return conclude(
            self._loaded,
            self._options,
            self._store.passes,
            how=how,
            commit=self._commit,
            created=created,
            versions=self._versions,
        )
