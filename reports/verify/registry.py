"""Which properties belong to which role, in the order of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from reports.verify.property import Property
from reports.verify.target import Part

if TYPE_CHECKING:
    from reports.verify.contract.subject import Role

CALLABLE = "contract.callable"  # where it fails, nothing else can be measured


def properties_of(part: Part) -> tuple[Property, ...]:
    """Return what is checked of ``part``, in order.

    Starvation needs a whole server: a preset is checked as one, a lone scheduler under the preset
    ``full``, a lone priority law in a neutral preset.
    """
    from reports.verify import coupling, coverage, micro, priority, serving, starvation
    from reports.verify.contract import properties_of as contract_of
    from reports.verify.samplers import PROPERTIES as SAMPLER_PROPERTIES

    if part.role == "sampler":  # it is no law, and its contract is another
        return SAMPLER_PROPERTIES
    found: dict[str, tuple[Property, ...]] = {
        "temperature": micro.PROPERTIES,
        "coverage": coverage.PROPERTIES,
        "priority": (
            *priority.PROPERTIES,
            *(starvation.PROPERTIES if part.alone else ()),
        ),
        "serving": (
            *starvation.PROPERTIES,
            *serving.PROPERTIES,
            *(() if part.alone else coupling.PROPERTIES),
        ),
    }
    rules: tuple[Property, ...] = ()
    if part.role != "serving":
        rules = cast("tuple[Property, ...]", contract_of(cast("Role", part.role)))
    return (*rules, *found[part.role])


def cost_of(name: str) -> int:
    """Return how many ordinary lanes a case of the property called ``name`` costs, about."""
    dear = {"micro.settles": 3, "micro.tube": 4, "micro.windup": 2, "coupling.finite_step": 4}
    areas = {"contract": 500, "starvation": 100, "sampler": 500, "serving": 60}
    return dear.get(name) or areas.get(name.partition(".")[0], 1)
