"""The control plane: laws, presets and the serving core. Needs numpy and nothing else."""

from controllers.clock import drawdown_nats, net_nats, tau_nats, total_variation_nats
from controllers.compose import (
    Chain,
    Delay,
    Filter,
    Gated,
    RateLimit,
    Shadow,
    delayed,
    rate_limited,
)
from controllers.core import (
    Law,
    LoadSignal,
    TemperatureLaw,
    TokenSignal,
    fingerprint,
    put_lanes,
    replay,
    take_lanes,
)
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.entropy import RowStats, entropy_varentropy, max_varentropy
from controllers.presets import PRESETS, Preset, get_preset, shadowed
from controllers.priority import EntropyPriority, Fcfs, PriorityLaw, SeedPriority
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)

__all__ = [
    "PRESETS",
    "Chain",
    "Delay",
    "EntropyCoverage",
    "EntropyFeedback",
    "EntropyPriority",
    "Fcfs",
    "FeedforwardNewton",
    "Filter",
    "FixedCoverage",
    "FixedTemperature",
    "Gated",
    "Law",
    "LoadSignal",
    "Preset",
    "PriorityLaw",
    "RateLimit",
    "RowStats",
    "SeedCoverage",
    "SeedLiteral",
    "SeedPriority",
    "Shadow",
    "TemperatureLaw",
    "TokenSignal",
    "delayed",
    "drawdown_nats",
    "entropy_varentropy",
    "fingerprint",
    "get_preset",
    "max_varentropy",
    "net_nats",
    "put_lanes",
    "rate_limited",
    "replay",
    "shadowed",
    "take_lanes",
    "tau_nats",
    "total_variation_nats",
]
