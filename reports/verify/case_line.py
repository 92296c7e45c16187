"""A case on one line: only the parameters that its own choices make matter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PLANT_READS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "peak": frozenset({"n"}),
        "levels": frozenset({"n", "spread", "z1", "z2", "z3", "share1", "share2"}),
        "random": frozenset({"seed", "spread"}),
        "recorded": frozenset({"seed"}),
    }
)
_SOME_PLANTS = frozenset().union(*PLANT_READS.values())  # what not every plant reads


def case_line(case: Mapping[str, object]) -> str:
    """Return ``case: name = value, ...`` without what plant, noise, pattern or mask ignore."""
    idle = _idle(case)
    return "case: " + ", ".join(f"{k} = {v}" for k, v in case.items() if k not in idle)


def _idle(case: Mapping[str, object]) -> frozenset[str]:
    """Return the parameters of ``case`` that change nothing."""
    idle: frozenset[str] = frozenset()
    plant = case.get("plant")
    if isinstance(plant, str) and plant in PLANT_READS:
        idle = _SOME_PLANTS - PLANT_READS[plant]
        if case.get("noise", "worst") != "worst":  # the other noises are drawn by the seed
            idle -= {"seed"}
    if "h_a" in case and case.get("pattern") in ("alternate", "ramp"):
        idle |= {"seed"}
    return idle | ({"off_for"} if case.get("on_for") == 0 else frozenset())
