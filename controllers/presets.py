"""Presets: the rows of the paper's Table 1 with corrected laws, the paper as printed, and our best.

``baseline`` is where the kill switch leads; every preset gates its temperature law. The published
schedulers that ours is compared with are in ``controllers/peers.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controllers.compose import Gated, Shadow, delayed
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.peers import PEERS
from controllers.preset import Preset
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)

PROBE_EVERY = 64  # tokens between dense probes where coverage is controlled
SEED_QUANTUM = 64  # tokens after which the paper's scheduler re-ranks residents


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``, one of ``PRESETS`` or a peer of ``PEERS``."""
    known = {**PRESETS, **PEERS}
    if name not in known:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(known)}")
    return known[name]


def shadowed(preset: Preset) -> Preset:
    """Return a preset that applies ``baseline`` and logs the commands of ``preset``.

    Temperatures come back in ``Result.shadow``, coverages from ``ServingLoop.shadow_coverage``. No
    page is evicted.
    """
    return Preset(
        name=f"{preset.name}_shadow",
        temperature=Shadow(applied=FixedTemperature(), observed=preset.temperature),
        coverage=Shadow(applied=FixedCoverage(), observed=preset.coverage),
        priority=Fcfs(),
        probe_every=preset.probe_every,
        sparse_min_context=preset.sparse_min_context,
        collapse_prior_nats=preset.collapse_prior_nats,
        collapse_prior_weight=preset.collapse_prior_weight,
        stages=preset.stages,
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
