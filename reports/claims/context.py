"""What judges share: a seed, the recorded trace, committed results, simulations made when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from reports.claims.serve import Served, orders, serve, table_rows
from reports.studies.ablation import Ablation, ablate
from reports.studies.variance import Sequences
from simulator.defaults import capacity_per_s
from simulator.model import TraceModel
from simulator.scenario import Scenario
from traces.store import Trace

PRESSURE = 1.1  # of capacity: queues grow, so that the order of service matters


@dataclass(frozen=True)
class Context:
    """Inputs of every judgement; equal contexts give equal judgements."""

    scenario: Scenario
    seeds: tuple[int, ...]
    jobs: int = 1  # processes of a simulation; the answer does not depend on it
    results: Mapping[str, Any] = field(default_factory=dict)  # committed measurements, by file name
    say: Callable[[str], None] = field(default=lambda _: None, compare=False, repr=False)

    def rng(self, stream: int) -> np.random.Generator:
        """Return a generator of its own for each judge."""
        return np.random.default_rng([self.seeds[0], stream])

    @property
    def trace(self) -> Trace:
        """Return the recorded trace."""
        return self.scenario.trace

    @property
    def model(self) -> TraceModel:
        """Return the recorded curves."""
        return self.scenario.model

    @cached_property
    def sequences(self) -> Sequences:
        """Return the recorded sequences of two tokens or more, as rows of the curves."""
        return Sequences.of(self.trace)

    @cached_property
    def ablation(self) -> Ablation:
        """Return every preset on the same arrivals, all seeds."""
        self.say("simulating the ablation")
        return ablate(self.scenario, seeds=self.seeds, jobs=self.jobs)

    @cached_property
    def table(self) -> Mapping[str, Served]:
        """Return the rows of the paper's Table 1 by its names, and ``Printed``: all as printed."""
        self.say("simulating Table 1")
        return serve(self.scenario, table_rows(), self.seeds, self.jobs)

    @cached_property
    def crowded(self) -> Mapping[str, Served]:
        """Return orders of service, all else baseline's, where requests queue."""
        self.say("simulating orders of service under pressure")
        scenario = self.scenario
        capacity = scenario.replicas * capacity_per_s(
            scenario.trace, scenario.profile.law, scenario.limits
        )
        return serve(scenario.at(PRESSURE * capacity), orders(), self.seeds, self.jobs)
