"""What a wrapped law is underneath, and what a user's own law says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from controllers.certificates.certificate import Certificate, Kind
from controllers.compose import Chain, Delay, Gated, RateLimit, Shadow
from controllers.core import fingerprint
from controllers.temperature import FixedTemperature


@runtime_checkable
class Certified(Protocol):
    """A law that brings its own certificates; they are taken at their word, by name."""

    def certificates(self) -> tuple[Certificate, ...]:
        """Return what is proved of this law, one certificate per name at most."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The law in charge once the wrappers are off, and what the wrappers do to its command."""

    law: Any
    delay_steps: int = 0  # of the actuator, summed over the filters
    rates: tuple[float, ...] = ()  # of the rate limits on the command


def bare(law: Any) -> Bare | None:
    """Take off ``Gated``, ``Chain`` and ``Shadow``; None where a wrapper is not ours to judge.

    Of a gated law, the lanes that are switched on are meant. A shadow is its applied law, which
    must not read the sensor that the observed law steers. A filter must begin at the user's ln T.
    """
    if replaces_ours(law):
        return None
    match law:
        case Gated():
            return bare(law.law)
        case Shadow():
            inner = bare(law.applied)
            fixed = inner is not None and isinstance(inner.law, FixedTemperature)
            return inner if fixed else None
        case Chain():
            inner = bare(law.law)
            if inner is None or not all(_begins_at_user(f) for f in law.filters):
                return None
            late = sum(f.steps for f in law.filters if isinstance(f, Delay))
            rates = tuple(f.rate for f in law.filters if isinstance(f, RateLimit))
            return Bare(
                law=inner.law,
                delay_steps=inner.delay_steps + late,
                rates=inner.rates + rates,
            )
        case _:
            return Bare(law=law)


def replaces_ours(law: Any) -> bool:
    """Tell whether a law's class replaces a method of ours: then it is another law, unproved."""
    kinds = type(law).__mro__
    ours = [c for c in kinds if c.__module__.partition(".")[0] == "controllers"]
    names = {name for c in ours for name in vars(c) if not name.startswith("__")}
    theirs = (vars(c).get(name) for c in kinds if c not in ours for name in names)
    return any(callable(value) or isinstance(value, property) for value in theirs)


def _begins_at_user(stage: Any) -> bool:
    known = isinstance(stage, Delay | RateLimit)
    return known and isinstance(stage.start, FixedTemperature)


def brought(law: Any, name: str) -> Certificate | None:
    """Return the certificate called ``name`` that ``law`` brings itself, if it brings any."""
    if not isinstance(law, Certified):
        return None
    return next((c for c in law.certificates() if c.name == name), None)


def spelled(law: Any) -> str:
    """Return the class names of a law from the outside in, ``Gated(EntropyFeedback)``."""
    match law:
        case Gated() | Chain():
            return f"{type(law).__name__}({spelled(law.law)})"
        case Shadow():
            return f"Shadow({spelled(law.applied)})"
        case _:
            return type(law).__name__


def issue(
    law: Any,
    name: str,
    *,
    kind: Kind,
    holds: bool,
    statement: str,
    assumptions: tuple[str, ...],
    derivation: str,
    bound: float,
    unit: str = "",
    constants: Mapping[str, float] | None = None,
) -> Certificate:
    """Build a certificate of ``law`` as the user holds it, wrappers and all."""
    return Certificate(
        name=name,
        law=spelled(law),
        fingerprint=fingerprint(law),
        kind=kind,
        holds=holds,
        statement=statement,
        assumptions=assumptions,
        constants={} if constants is None else dict(constants),
        bound=bound,
        unit=unit,
        derivation=derivation,
    )
