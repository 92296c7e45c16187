"""Presets: the rows of the paper's Table 1 with corrected laws, the paper as printed, and our best.

``baseline`` is where the kill switch leads; every preset gates its temperature law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controllers.compose import Gated, Shadow, delayed
from controllers.core import Law, TemperatureLaw, fingerprint, require
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.priority import EntropyPriority, Fcfs, PriorityLaw, SeedPriority
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)

PROBE_EVERY = 64  # tokens between dense probes where coverage is controlled
SEED_QUANTUM = 64  # tokens after which the paper's scheduler re-ranks residents


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

    def __post_init__(self) -> None:
        require(self.name != "", "a preset needs a name", name=self.name)
        require(
            self.quantum_tokens is None or self.quantum_tokens >= 1,
            "quantum_tokens must be >= 1 or None",
            quantum_tokens=self.quantum_tokens,
        )
        for name in (
            "probe_every",
            "sparse_min_context",
            "collapse_prior_nats",
            "collapse_prior_weight",
        ):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} must be >= 0", **{name: value})

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each law, by role; a log carries them so replay can refuse."""
        return {
            "temperature": fingerprint(self.temperature),
            "coverage": fingerprint(self.coverage),
            "priority": fingerprint(self.priority),
        }


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def shadowed(preset: Preset) -> Preset:
    """Return a preset that applies ``baseline`` and logs the temperatures of ``preset``."""
    return Preset(
        name=f"{preset.name}_shadow",
        temperature=Shadow(applied=FixedTemperature(), observed=preset.temperature),
        coverage=FixedCoverage(),
        priority=Fcfs(),
        sparse_min_context=preset.sparse_min_context,
        collapse_prior_nats=preset.collapse_prior_nats,
        collapse_prior_weight=preset.collapse_prior_weight,
    )


_ALL = (
    Preset(
        name="baseline",
        temperature=Gated(law=FixedTemperature()),
        coverage=FixedCoverage(),
        priority=Fcfs(),
    ),
    Preset(
        name="sampling",
        temperature=Gated(law=EntropyFeedback()),
        coverage=FixedCoverage(),
        priority=Fcfs(),
    ),
    Preset(
        name="scheduling",
        temperature=Gated(law=FixedTemperature()),
        coverage=FixedCoverage(),
        priority=EntropyPriority(),
    ),
    Preset(
        name="attention",
        temperature=Gated(law=FixedTemperature()),
        coverage=EntropyCoverage(),
        priority=Fcfs(),
        probe_every=PROBE_EVERY,
    ),
    Preset(
        name="full",
        temperature=Gated(law=EntropyFeedback()),
        coverage=EntropyCoverage(),
        priority=EntropyPriority(),
        probe_every=PROBE_EVERY,
    ),
    Preset(
        name="seed",
        temperature=Gated(law=delayed(SeedLiteral())),
        coverage=SeedCoverage(),
        priority=SeedPriority(),
        quantum_tokens=SEED_QUANTUM,
        probe_every=PROBE_EVERY,
    ),
    Preset(
        name="best",
        temperature=Gated(law=FeedforwardNewton()),
        coverage=EntropyCoverage(),
        priority=EntropyPriority(),
        probe_every=PROBE_EVERY,
    ),
)
PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})
