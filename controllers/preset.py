"""What a preset is: the three laws of a server and the serving parameters that belong to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from controllers.core import Law, TemperatureLaw, fingerprint, require
from controllers.priority import PriorityLaw
from controllers.samplers.core import Sampler
from controllers.selection import Pins


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The three laws of a server, and the serving parameters that belong to them.

    The collapse prior is what a request of ``collapse_prior_weight`` observed tokens would have to
    say to be believed halfway: E|H_t - H_{t-1}|/2 of a stationary sequence, until it has its own.
    """

    name: str
    temperature: TemperatureLaw
    coverage: Law
    priority: PriorityLaw
    quantum_tokens: int | None = None  # None: residents keep their slots
    probe_every: int = 0  # tokens between dense probes; 0 never
    sparse_min_context: int = 512  # tokens; below it coverage is 1
    collapse_prior_nats: float = 0.75
    collapse_prior_weight: float = 16.0  # tokens
    kv_budget_pages: int | None = None  # pages a request keeps while it decodes; None: all
    kv_burst_pages: int = 8  # pages above the budget before any is given up
    stages: tuple[Sampler, ...] = ()  # truncations after the temperature, in order; live only

    def __post_init__(self) -> None:
        require(self.name != "", "a preset needs a name", name=self.name)
        require(
            self.quantum_tokens is None or self.quantum_tokens >= 1,
            "quantum_tokens must be >= 1 or None",
            quantum_tokens=self.quantum_tokens,
        )
        require(
            self.kv_budget_pages is None or self.kv_budget_pages >= Pins().min_pages,
            f"kv_budget_pages must be >= {Pins().min_pages} or None",
            kv_budget_pages=self.kv_budget_pages,
        )
        for name in (
            "kv_burst_pages",
            "probe_every",
            "sparse_min_context",
            "collapse_prior_nats",
            "collapse_prior_weight",
        ):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} must be >= 0", **{name: value})

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each law, by role; a log carries them so replay can refuse."""
        found = {
            "temperature": fingerprint(self.temperature),
            "coverage": fingerprint(self.coverage),
            "priority": fingerprint(self.priority),
        }
        return found | ({"stages": fingerprint(self.stages)} if self.stages else {})
