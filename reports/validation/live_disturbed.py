"""Which runs were disturbed, by their reference steps alone: a rule fixed before the first run.

A fixed batch is served before and after every run. A run is set aside if either takes more than
``beyond`` longer or shorter than the median of all references so far, its own among them; the
first runs are judged once there are ``FEWEST`` references. A run's own latencies are never looked
at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reports.validation.live_load import LiveOptions, Spec, specs
from reports.validation.live_store import Folder, Measured

FEWEST = 5  # references from which there is a median to compare with
TRIES = 3  # of a run at most: two more than the first


def set_aside(references: Sequence[tuple[float, float]], beyond: float) -> list[bool]:
    """Return which runs are set aside; ``references``: before and after each, in order of time."""
    enough = -(-FEWEST // 2)
    if len(references) < enough:
        return [False] * len(references)
    found = []
    for number, pair in enumerate(references, start=1):
        level = float(np.median(references[: max(number, enough)]))
        found.append(any(abs(each / level - 1.0) > beyond for each in pair))
    return found


def references_of(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Return what the reference steps took before and after a run, over their price."""
    return facts["drift"]["total"], facts["drift_after"]["total"]


class Tries:
    """Every run of a folder with its further tries, and which of them counts."""

    def __init__(self, folder: Folder, options: LiveOptions) -> None:
        self.wanted = specs(options)
        made = [
            folder.read(replace(spec, attempt=attempt))
            for spec in self.wanted
            for attempt in range(TRIES)
            if folder.has(replace(spec, attempt=attempt))
        ]
        self.made = sorted(made, key=lambda run: run.facts["order"])
        flags = set_aside([references_of(run.facts) for run in self.made], options.redo_beyond)
        self._bad = {run.spec for run, flag in zip(self.made, flags, strict=True) if flag}

    def left(self) -> list[Spec]:
        """Return the runs still to be made: those never made, then those set aside, once more."""
        made = {run.spec for run in self.made}
        never = [spec for spec in self.wanted if spec not in made]
        again = []
        for spec in self.wanted:
            last = self._last(spec, made)
            if last in self._bad and last.attempt + 1 < TRIES:
                again.append(replace(last, attempt=last.attempt + 1))
        return never + again

    def counted(self) -> list[Measured]:
        """Return the runs that count: of each its last try, disturbed or not."""
        made = {run.spec: run for run in self.made}
        return [made[self._last(spec, set(made))] for spec in self.wanted]

    def aside(self) -> list[Measured]:
        """Return the runs that do not count."""
        counted = {run.spec for run in self.counted()}
        return [run for run in self.made if run.spec not in counted]

    def disturbed(self, run: Measured) -> bool:
        """Whether the rule sets this run aside; one that counts all the same had no try left."""
        return run.spec in self._bad

    def _last(self, spec: Spec, made: set[Spec]) -> Spec:
        tries = [replace(spec, attempt=attempt) for attempt in range(TRIES)]
        return [spec, *(each for each in tries if each in made)][-1]
