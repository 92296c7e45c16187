"""All claims in the order of the page, and the flaws of the catalogue they cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from controllers.core import require
from reports.claims import (
    attention,
    composing,
    estimators,
    feedback,
    macro,
    meso,
    micro,
    results,
    system,
    theory,
)
from reports.claims.claim import Claim

SECTIONS: Mapping[str, tuple[Claim, ...]] = MappingProxyType(
    {
        "Theory": theory.CLAIMS,
        "Entropic time and its estimation": estimators.CLAIMS,
        "Sampling": micro.CLAIMS,
        "Pruning": (*meso.CLAIMS, *attention.CLAIMS, *feedback.CLAIMS),
        "Scheduling": macro.CLAIMS,
        "The coupled system": system.CLAIMS,
        "Results": results.CLAIMS,
        "Composition and text": composing.CLAIMS,
    }
)
FLAWS = tuple(f"F{n}" for n in range(1, 46))  # the catalogue's


def all_claims(sections: Mapping[str, Sequence[Claim]] = SECTIONS) -> tuple[Claim, ...]:
    """Return every claim in order; a key used twice is an error."""
    claims = tuple(claim for part in sections.values() for claim in part)
    keys = [claim.key for claim in claims]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    require(not twice, "claims need keys of their own", keys=twice)
    return claims


def get_claim(key: str) -> Claim:
    """Return the claim called ``key``."""
    for claim in all_claims():
        if claim.key == key:
            return claim
    known = ", ".join(claim.key for claim in all_claims())
    raise ValueError(f"unknown claim {key!r}; known: {known}")


def by_flaw(claims: Sequence[Claim]) -> dict[str, tuple[str, ...]]:
    """Return the keys of the claims that cover each flaw; none for a flaw that is not covered."""
    return {flaw: tuple(c.key for c in claims if flaw in c.flaws) for flaw in FLAWS}
