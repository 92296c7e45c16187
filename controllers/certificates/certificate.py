"""What a certificate is: a bound that follows from a law's gains, with all that it assumes.

Two kinds. *Exact*: the condition is necessary as well, so a search must find a violation just
outside it. *Sufficient*: the bound holds, and how much it gives away is reported by the search as
its conservatism ratio, bound over worst found.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from controllers.core import fingerprint, require

Kind = Literal["exact", "sufficient"]
SCHEMA = "entropic-certificate"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One proved statement about one law with these gains.

    ``holds`` is whether the law meets the condition. Where it does not, an exact certificate
    predicts a violation and a sufficient one says nothing.
    """

    name: str  # of the property, the verifier's word for what is bounded, "micro.stability"
    law: str  # class name
    fingerprint: str  # of the law and its gains
    kind: Kind
    holds: bool
    statement: str  # the condition, with its numbers
    assumptions: tuple[str, ...]
    constants: Mapping[str, float] = field(default_factory=dict)
    bound: float = math.inf  # what the searched quantity may not exceed
    unit: str = ""
    derivation: str = ""  # heading of the derivation in controllers/README.md

    def __post_init__(self) -> None:
        require(self.kind in ("exact", "sufficient"), "kind is exact or sufficient", kind=self.kind)
        require(len(self.assumptions) > 0, "a certificate names its assumptions", law=self.law)
        require(self.derivation != "", "a certificate cites its derivation", law=self.law)
        require(not math.isnan(self.bound), "bound must be a number", bound=self.bound)

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as JSON values; an infinite bound is null."""
        row = {"schema": SCHEMA, "version": VERSION}
        for item in dataclasses.fields(self):
            row[item.name] = getattr(self, item.name)
        row["assumptions"] = list(self.assumptions)
        row["constants"] = {k: finite_or_none(v) for k, v in self.constants.items()}
        row["bound"] = finite_or_none(self.bound)
        return row

    def dumps(self) -> str:
        """Return the certificate as one JSON text, keys sorted."""
        return json.dumps(self.to_json(), sort_keys=True, allow_nan=False)


def certificate(law: Any, name: str, **parts: Any) -> Certificate:
    """Build a certificate that names ``law`` and its gains."""
    return Certificate(name=name, law=type(law).__name__, fingerprint=fingerprint(law), **parts)


def finite_or_none(value: float) -> float | None:
    """Return ``value``, or None where it is not finite: JSON has no infinity."""
    return float(value) if math.isfinite(value) else None
