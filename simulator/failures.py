"""When machines crash and for how long: stated moments, or seeded streams one per machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.description import Failures
from simulator.workload import NS_PER_S


class FailureClock:
    """Draws up-times and down-times; a machine's stream depends on the seed and its number only."""

    def __init__(self, rules: Failures) -> None:
        self._rules = rules
        self._streams: dict[int, np.random.Generator] = {}

    def stated(self) -> Iterator[tuple[int, int, int | None]]:
        """Yield machine, moment ns and ns of absence (None: for good) of each stated outage."""
        for outage in self._rules.outages:
            down = None if outage.down_s is None else round(outage.down_s * NS_PER_S)
            yield outage.machine, round(outage.at_s * NS_PER_S), down

    def uptime_ns(self, machine: int) -> int | None:
        """Return how long a machine just come up will run, ns; None: no random failures."""
        mean = self._rules.mtbf_s
        return None if mean is None else self._draw(machine, mean)

    def downtime_ns(self, machine: int) -> int:
        """Return how long a machine that crashed at random will be down, ns."""
        return self._draw(machine, self._rules.mttr_s)

    def _draw(self, machine: int, mean_s: float) -> int:
        stream = self._streams.get(machine)
        if stream is None:
            key = np.random.SeedSequence(self._rules.seed, spawn_key=(machine,))
            stream = self._streams[machine] = np.random.default_rng(key)
        return max(1, round(float(stream.standard_exponential()) * mean_s * NS_PER_S))
