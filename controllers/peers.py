"""Presets of published schedulers, to compare ours with; all else is ``baseline``'s.

``baseline`` itself is first come, first served. ``srpt_oracle`` reads true output lengths and so
runs in the simulator only. A displaced request computes its KV again, which no published
preemptive scheduler assumes; where prompts are long that costs more than any order gains. ``ltr``
and ``mlfq`` re-rank residents all the same, since their rules rest on it; ``srpt_oracle`` does not,
to be the better yardstick (``dataclasses.replace(preset, quantum_tokens=1)`` is SRPT proper).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controllers.compose import Gated
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from controllers.priority import PriorityLaw
from controllers.schedulers import (
    LearnedRank,
    ShortestJob,
    SkipJoinMlfq,
    SrptOracle,
    UserPriority,
    Vtc,
)
from controllers.schedulers.learned import GUARD_PERIOD
from controllers.temperature import FixedTemperature

MLFQ_QUANTUM = 64  # tokens between looks at a resident, like the paper's scheduler; ours


def _peer(name: str, priority: PriorityLaw, quantum_tokens: int | None = None) -> Preset:
    return Preset(
        name=name,
        temperature=Gated(law=FixedTemperature()),
        coverage=FixedCoverage(),
        priority=priority,
        quantum_tokens=quantum_tokens,
    )


_ALL = (
    _peer("user_priority", UserPriority()),
    _peer("sjf", ShortestJob()),
    _peer("ltr", LearnedRank(), GUARD_PERIOD),
    _peer("srpt_oracle", SrptOracle()),
    _peer("mlfq", SkipJoinMlfq(), MLFQ_QUANTUM),
    _peer("vtc", Vtc()),
)
PEERS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})
