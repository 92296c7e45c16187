"""How hard the verifier tries: the sizes of its search, as named profiles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from controllers.core import require

FEWEST_LANES = 8
MOST_LANES = 100_000_000  # days of search


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one property may spend on one law. Equal budgets and seeds give equal reports."""

    name: str = "quick"
    lanes: int = 6_000  # random cases
    batch: int = 3_000  # cases measured at once
    worst: int = 8  # cases that are refined
    rounds: int = 6  # of refinement
    neighbours: int = 32  # perturbations of each, per round
    examples: int = 40  # hypothesis examples, one case each
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("lanes", "batch", "worst", "neighbours"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1", **{name: value})
        require(self.lanes <= MOST_LANES, f"lanes must be at most {MOST_LANES:,}", lanes=self.lanes)
        for name in ("rounds", "examples", "seed"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative", **{name: value})

    def divided(self, cost: int) -> Budget:
        """Return the budget of a property whose cases cost ``cost`` ordinary ones each."""
        if cost == 1:
            return self
        lanes = max(FEWEST_LANES, self.lanes // cost)
        return dataclasses.replace(
            self,
            lanes=lanes,
            batch=min(self.batch, lanes),
            worst=min(self.worst, max(1, lanes // 4)),
            rounds=min(self.rounds, 2),
            neighbours=max(1, self.neighbours // cost),
            examples=math.ceil(self.examples / cost),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the budget as JSON values."""
        return dataclasses.asdict(self)


_ALL = (
    Budget(name="ci", lanes=2_000, batch=1_000, rounds=3, neighbours=16, examples=10),
    Budget(name="quick"),
    Budget(name="deep", lanes=400_000, batch=16_384, worst=32, rounds=20, examples=300),
)
PROFILES: Mapping[str, Budget] = MappingProxyType({budget.name: budget for budget in _ALL})


def get_budget(name: str, *, lanes: int | None = None, seed: int = 0) -> Budget:
    """Return the profile called ``name`` with another number of lanes and a seed."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    budget = PROFILES[name]
    return dataclasses.replace(budget, lanes=budget.lanes if lanes is None else lanes, seed=seed)
