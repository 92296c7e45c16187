"""Device profiles: what a machine's steps cost, as named numbers with their provenance.

A profile is the fitted step law (``controllers.steplaw``) of one model on one device, the range it
was fitted over, its error on steps held out of the fit, and the engine limits in force. Outside the
range the law extrapolates, and the reader of the profile should say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from controllers.steplaw import StepLaw
from traces.atomic import atomic_path

SCHEMA_NAME = "entropic-profile"
SCHEMA_VERSION = 1


class ProfileError(ValueError):
    """A profile that cannot be used. One line: the file, the field, the rule, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The measured cost of one model's steps on one device."""

    device: str  # as the driver or the processor names itself
    model: str
    backend: str  # how attention ran: "torch", "triton", …
    dtype: str
    commit: str  # of this repository, when measured
    created: str  # ISO 8601, UTC
    versions: dict[str, str]  # package -> version
    ranges: dict[str, tuple[float, float]]  # feature -> smallest and largest value fitted
    fit_error: dict[str, float]  # on held-out steps; "mean_abs_pct", "p95_abs_pct", …
    step_law: dict[str, float]  # coefficients of controllers.steplaw.StepLaw, seconds
    limits: dict[str, int]  # "kv_pages", "page_tokens", "max_sequences", "token_budget", …

    def __post_init__(self) -> None:
        _check(self)

    @property
    def law(self) -> StepLaw:
        """The step law these coefficients make."""
        return StepLaw.from_json(self.step_law)

    def outside(self, **values: float) -> dict[str, tuple[float, float]]:
        """Return the fitted ranges of the features whose value lies outside them."""
        ranges = {name: self.ranges[name] for name in values if name in self.ranges}
        return {n: (lo, hi) for n, (lo, hi) in ranges.items() if not lo <= values[n] <= hi}


def write_profile(path: Path | str, profile: Profile) -> None:
    """Write ``profile`` as JSON, completely or not at all."""
    document = {"schema": SCHEMA_NAME, "version": SCHEMA_VERSION, **asdict(profile)}
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_path(Path(path)) as part:
        part.write_text(text, encoding="utf-8")


def read_profile(path: Path | str) -> Profile:
    """Read and check a profile; anything wrong is a ``ProfileError`` naming the field."""
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: must hold one JSON object; got {type(document).__name__}")
    for key, want in (("schema", SCHEMA_NAME), ("version", SCHEMA_VERSION)):
        if document.get(key) != want:
            raise ProfileError(f"{path}: {key}: must be {want!r}; got {document.get(key)!r}")
    known = {field.name for field in fields(Profile)}
    for name in sorted(known - set(document)):
        raise ProfileError(f"{path}: {name}: is missing")
    for name in sorted(set(document) - known - {"schema", "version"}):
        raise ProfileError(f"{path}: {name}: is not a profile field")
    try:
        values = {name: document[name] for name in known}
        values["ranges"] = _pairs(document["ranges"])
        return Profile(**values)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from error


def _pairs(ranges: Any) -> dict[str, tuple[float, float]]:
    if not isinstance(ranges, dict):
        raise ProfileError(f"ranges: must be an object; got {ranges!r}")
    for name, pair in ranges.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ProfileError(f"ranges.{name}: must be [low, high]; got {pair!r}")
    return {name: (pair[0], pair[1]) for name, pair in ranges.items()}


def _check(profile: Profile) -> None:
    for name in ("device", "model", "backend", "dtype", "commit", "created"):
        value = getattr(profile, name)
        if not isinstance(value, str) or not value:
            raise ProfileError(f"{name}: must be a non-empty text; got {value!r}")
    for name in ("versions", "ranges", "fit_error", "step_law", "limits"):
        value = getattr(profile, name)
        if not isinstance(value, Mapping):
            raise ProfileError(f"{name}: must be an object; got {value!r}")
    for name, version in profile.versions.items():
        if not isinstance(version, str):
            raise ProfileError(f"versions.{name}: must be a text; got {version!r}")
    for name, (low, high) in profile.ranges.items():
        if not (_finite(low) and _finite(high) and low <= high):
            raise ProfileError(f"ranges.{name}: must be finite, low <= high; got {(low, high)!r}")
    for group in ("fit_error", "step_law"):
        for name, value in getattr(profile, group).items():
            if not _finite(value) or value < 0:
                raise ProfileError(f"{group}.{name}: must be finite and >= 0; got {value!r}")
    try:
        StepLaw.from_json(profile.step_law)
    except ValueError as error:
        raise ProfileError(f"step_law: {error}") from error
    for name, value in profile.limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ProfileError(f"limits.{name}: must be an integer >= 1; got {value!r}")


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
