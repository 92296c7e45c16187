"""Device profiles: what a machine's steps cost, as named numbers with their provenance.

A profile is the step law (``controllers.steplaw``) of one model on one replica of a device, the
range it was fitted over, its error on steps held out of the fit, where the numbers come from, and
the engine limits in force. Outside the range the law extrapolates, and whoever reads the profile
should say so. Another device or model is never put in place of the one asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from controllers.preset import Preset
from controllers.steplaw import StepLaw
from traces.atomic import atomic_path

SCHEMA_NAME = "entropic-profile"
SCHEMA_VERSION = 2
VERSIONS = (1, 2)

Kind = Literal["measured", "fitted", "roofline"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ADDED = (  # with version 2; a version 1 file has their defaults
    "source",
    "kind",
    "usd_per_hour",
    "watts",
    "gpus",
    "limits_estimated",
    "kv_bytes_per_token",
)
OPTIONAL = ("sparse_from_tokens",)  # may be absent in any version


class ProfileError(ValueError):
    """A profile that cannot be used. One line: the file, the field, the rule, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The cost of one model's steps on one replica."""

    device: str  # as the driver or the processor names itself
    model: str
    backend: str  # how attention ran: "torch", "triton", …
    dtype: str
    commit: str  # of the repository that the numbers come from
    created: str  # ISO 8601, UTC
    versions: dict[str, str]  # package -> version
    ranges: dict[str, tuple[float, float]]  # feature -> smallest and largest value fitted
    fit_error: dict[str, float]  # on held-out steps; "held_out_mean_abs_pct", …
    step_law: dict[str, float]  # coefficients of controllers.steplaw.StepLaw, seconds
    limits: dict[str, int]  # controllers.serving.limits.EngineLimits, by name
    source: str = "timed on the device it names"  # where the numbers come from, with licence
    kind: Kind = "measured"  # whole steps timed | composed of parts timed | from datasheets
    usd_per_hour: float | None = None  # of one GPU
    watts: float | None = None  # of one GPU under load; a datasheet's limit where kind says so
    gpus: int = 1  # of one replica: the tensor-parallel degree
    limits_estimated: bool = False  # limits were computed, not resolved by an engine
    kv_bytes_per_token: int | None = None  # over all GPUs of a replica
    sparse_from_tokens: int | None = None  # of context; shorter rows run dense on this device

    def __post_init__(self) -> None:
        _check(self)

    @property
    def law(self) -> StepLaw:
        """The step law these coefficients make."""
        return StepLaw.from_json(self.step_law)

    def served(self, preset: Preset) -> Preset:
        """Return ``preset`` as this device's engine serves it: shorter rows are read densely.

        Where choosing pages costs what it saves, the engine reads all of them, whatever the preset
        would have: pages are chosen from the larger of both contexts on.
        """
        least = max(preset.sparse_min_context, self.sparse_from_tokens or 0)
        return replace(preset, sparse_min_context=least)

    def outside(self, **values: float) -> dict[str, tuple[float, float]]:
        """Return the fitted ranges of the features whose value lies outside them."""
        ranges = {name: self.ranges[name] for name in values if name in self.ranges}
        return {n: (lo, hi) for n, (lo, hi) in ranges.items() if not lo <= values[n] <= hi}


def write_profile(path: Path | str, profile: Profile) -> None:
    """Write ``profile`` as JSON, completely or not at all."""
    document = {"schema": SCHEMA_NAME, "version": SCHEMA_VERSION, **asdict(profile)}
    for name in OPTIONAL:
        if document[name] is None:
            del document[name]
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_path(Path(path)) as part:
        part.write_text(text, encoding="utf-8")


def read_profile(path: Path | str) -> Profile:
    """Read and check a profile of version 1 or 2; a ``ProfileError`` names the field at fault."""
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ProfileError(f"{path}: must hold one JSON object; got {type(document).__name__}")
    if document.get("schema") != SCHEMA_NAME:
        raise ProfileError(
            f"{path}: schema: must be {SCHEMA_NAME!r}; got {document.get('schema')!r}"
        )
    version = document.get("version")
    if isinstance(version, bool) or version not in VERSIONS:
        raise ProfileError(f"{path}: version: must be 1 or 2; got {version!r}")
    known = {field.name for field in fields(Profile)} - set(ADDED if version == 1 else ())
    for name in sorted(known - set(document) - set(OPTIONAL)):
        raise ProfileError(f"{path}: {name}: is missing")
    for name in sorted(set(document) - known - {"schema", "version"}):
        raise ProfileError(f"{path}: {name}: is not a profile field")
    try:
        values = {name: document[name] for name in known if name in document}
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
    for name in ("device", "model", "backend", "dtype", "commit", "created", "source"):
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
        if not _whole(value) or value < 1:
            raise ProfileError(f"limits.{name}: must be an integer >= 1; got {value!r}")
    _check_added(profile)


def _check_added(profile: Profile) -> None:
    if profile.kind not in KINDS:
        raise ProfileError(f"kind: must be one of {', '.join(KINDS)}; got {profile.kind!r}")
    for name in ("usd_per_hour", "watts"):
        value = getattr(profile, name)
        if value is not None and (not _finite(value) or value < 0):
            raise ProfileError(f"{name}: must be null or finite and >= 0; got {value!r}")
    if not _whole(profile.gpus) or profile.gpus < 1:
        raise ProfileError(f"gpus: must be an integer >= 1; got {profile.gpus!r}")
    if not isinstance(profile.limits_estimated, bool):
        raise ProfileError(
            f"limits_estimated: must be true or false; got {profile.limits_estimated!r}"
        )
    for name in ("kv_bytes_per_token", "sparse_from_tokens"):
        value = getattr(profile, name)
        if value is not None and (not _whole(value) or value < 1):
            raise ProfileError(f"{name}: must be null or an integer >= 1; got {value!r}")


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
