"""Read a cluster description from JSON; every error is one line that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from controllers.core import require
from controllers.serving.limits import OPTIONS, EngineLimits
from controllers.steplaw import StepLaw
from simulator.defaults import find_profile, limits_for
from simulator.description import (
    Admission,
    Autoscale,
    ClusterPlan,
    Failures,
    Group,
    Outage,
    Transfer,
)
from traces.profile import Profile, read_profile

T = TypeVar("T")
FindProfile = Callable[[str, str, int], Profile]  # model, GPU, tensor-parallel degree


def read_plan(
    path: Path | str, *, page_tokens: int = 16, find: FindProfile = find_profile
) -> ClusterPlan:
    """Return the cluster that a JSON file describes; ``ValueError`` names the field at fault.

    The keys are the fields of ``ClusterPlan`` and its parts. A group may name a ``profile``: a
    file beside this one, or ``{"model", "gpu", "tp"}``, which ``find`` looks up. It gives the step
    law, GPUs, price, power and those limits that the group does not state; ``page_tokens`` is the
    trace's.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    try:
        return plan_of(document, folder=path.parent, page_tokens=page_tokens, find=find)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def plan_of(
    document: Any, *, folder: Path, page_tokens: int = 16, find: FindProfile = find_profile
) -> ClusterPlan:
    """Return the cluster that a JSON value describes; see :func:`read_plan`."""
    row = _object("topology", document, ClusterPlan)
    groups = _list("groups", row.pop("groups", None))
    parts: dict[str, Any] = {}
    for name, kind in (("admission", Admission), ("transfer", Transfer)):
        if row.get(name) is not None:
            parts[name] = _made(name, row[name], kind)
    if row.get("failures") is not None:
        parts["failures"] = _failures(row["failures"])
    return ClusterPlan(
        groups=tuple(
            _group(f"groups[{i}]", group, folder, page_tokens, find)
            for i, group in enumerate(groups)
        ),
        **parts,
    )


def _group(where: str, value: Any, folder: Path, page_tokens: int, find: FindProfile) -> Group:
    row = _object(where, value, Group, more=("profile",))
    profile = _profile(where, row.pop("profile", None), folder, find)
    if row.get("autoscale") is not None:
        row["autoscale"] = _made(f"{where}.autoscale", row["autoscale"], Autoscale)
    if row.get("step_law") is not None:
        law = _object(f"{where}.step_law", row["step_law"], StepLaw)
        row["step_law"] = _named(f"{where}.step_law", StepLaw.from_json, law)
    stated = row.pop("limits", None)
    if profile is not None:
        row.setdefault("step_law", profile.law)
        row.setdefault("gpus", profile.gpus)
        for name in ("usd_per_hour", "watts"):
            row.setdefault(name, getattr(profile, name))
        own = _object(f"{where}.limits", stated or {}, EngineLimits)
        whole = {**limits_for(profile, page_tokens).to_json(), **own}
        row["limits"] = _limits(f"{where}.limits", whole, page_tokens)
    elif stated is not None:
        row["limits"] = _limits(f"{where}.limits", stated, page_tokens)
    return _made(where, row, Group)


def _profile(where: str, value: Any, folder: Path, find: FindProfile) -> Profile | None:
    if value is None:
        return None
    where = f"{where}.profile"
    if isinstance(value, str):
        return read_profile(folder / value)
    known = isinstance(value, dict) and {"model", "gpu"} <= set(value) <= {"model", "gpu", "tp"}
    require(known, f'{where} must be a file or {{"model", "gpu", "tp"}}', value=value)
    for name in ("model", "gpu"):
        _check_type(f"{where}.{name}", "str", value[name])
    degree = value.get("tp", 1)
    _check_type(f"{where}.tp", "int", degree)
    try:
        return find(value["model"], value["gpu"], degree)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _limits(where: str, value: Any, page_tokens: int) -> EngineLimits:
    row = {"page_tokens": page_tokens, **_object(where, value, EngineLimits)}
    missing = {field.name for field in fields(EngineLimits)} - set(row) - set(OPTIONS)
    require(not missing, f"{where} lacks fields", missing=sorted(missing))
    return _named(where, EngineLimits.from_json, row)


def _failures(value: Any) -> Failures:
    row = _object("failures", value, Failures)
    outages = _list("failures.outages", row.get("outages") or [])
    row["outages"] = tuple(
        _made(f"failures.outages[{i}]", outage, Outage) for i, outage in enumerate(outages)
    )
    return _made("failures", row, Failures)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is given twice one value would be lost."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "the keys of an object must be given once", twice=twice)
    return dict(pairs)


def _object(where: str, value: Any, kind: type, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a copy of a JSON object whose keys are fields of ``kind``."""
    require(isinstance(value, Mapping), f"{where} must be an object", value=value)
    known = {field.name for field in fields(kind)} | set(more)
    unknown = sorted(set(value) - known)
    require(not unknown, f"{where} has unknown fields; known: {sorted(known)}", unknown=unknown)
    return dict(value)


def _list(where: str, value: Any) -> list[Any]:
    require(isinstance(value, list), f"{where} must be a list", value=value)
    return value


def _made(where: str, value: Any, kind: type[T]) -> T:
    """Build ``kind`` of a JSON object; numbers must be numbers and names texts."""
    row = _object(where, value, kind)
    for field in fields(kind):  # pyright: ignore[reportArgumentType]
        if field.name not in row:
            needed = field.default is MISSING and field.default_factory is MISSING
            require(not needed, f"{where}.{field.name} is missing", got=sorted(row))
            continue
        _check_type(f"{where}.{field.name}", str(field.type), row[field.name])
    return _named(where, lambda fields: kind(**fields), row)


def _check_type(where: str, annotation: str, value: Any) -> None:
    """Refuse a JSON value of another type than a plain field's; parts are checked as they come."""
    kinds = annotation.split(" | ")
    if value is None:
        require("None" in kinds, f"{where} must not be null", value=None)
    elif "float" in kinds:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number, f"{where} must be a number", value=value)
    elif "int" in kinds:
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole, f"{where} must be an integer", value=value)
    elif kinds[0] in ("str", "Role", "Load"):
        require(isinstance(value, str), f"{where} must be a text", value=value)


def _named(where: str, make: Callable[[dict[str, Any]], T], row: dict[str, Any]) -> T:
    try:
        return make(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
