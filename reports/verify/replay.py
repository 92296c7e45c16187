"""Counterexamples as files: written whole, checked when read, measured again on request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from controllers.certificates.certificate import finite_or_none
from reports.verify.error_line import error_line
from reports.verify.property import Property
from reports.verify.registry import properties_of
from reports.verify.search import SelfSearching
from reports.verify.target import Part, Target, resolve
from reports.verify.trial import Bench, Trial
from traces.atomic import atomic_path
from traces.console import package_versions

SCHEMA = "entropic.counterexample"
VERSION = 1
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "target": str,
    "subject": str,
    "role": str,
    "property": str,
    "fingerprint": str,
    "case": dict,
    "story": list,
}


class Replayed(NamedTuple):
    """A counterexample measured again."""

    name: str  # of the property
    trial: Trial
    story: list[str]


def counterexample(
    target: Target, part: Part, prop: Property, worst: Trial, story: tuple[str, ...]
) -> dict[str, Any]:
    """Return a violating case as the JSON object its file holds."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "target": target.spec,
        "subject": target.subject_name,
        "role": part.role,
        "law": part.description,
        "fingerprint": part.fingerprint,
        "property": prop.name,
        "statement": prop.statement,
        "unit": prop.unit,
        "case": worst.case,
        "value": finite_or_none(worst.value),
        "bound": finite_or_none(worst.bound),
        "raised": worst.raised,
        "story": list(story),
        "versions": package_versions("entropic-time", "numpy", "hypothesis", "torch"),
        "replay": "entropic verify --replay THIS_FILE",
    }


def file_name(subject: str, role: str, prop: str) -> str:
    """Return a valid file name, ``subject.property.json``; contract rules say the role too."""
    middle = f".{role}" if prop.startswith("contract.") else ""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{subject}{middle}.{prop}")
    return name.lstrip(".") + ".json"


def write_json(path: Path, document: dict[str, Any]) -> Path:
    """Write ``document`` whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def read_counterexample(path: Path) -> dict[str, Any]:
    """Read and check a counterexample; ``ValueError`` names the file and what is wrong."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"counterexample {str(path)!r} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"{str(path)!r} is no counterexample: schema is not {SCHEMA!r}")
    if document.get("version") != VERSION:
        got = document.get("version")
        raise ValueError(f"counterexample {str(path)!r} has version {got!r}; need {VERSION}")
    for name, kind in _FIELDS.items():
        if not isinstance(document.get(name), kind):
            raise ValueError(f"counterexample {str(path)!r}: {name} is missing or damaged")
    return document


def replay(
    path: Path, *, properties: Callable[[Part], tuple[Property, ...]] = properties_of
) -> Replayed:
    """Measure the case in ``path`` again on what its target names now.

    Refuses a target whose law or gains changed; changed code of the same law is the point.
    """
    document = read_counterexample(path)
    part = _part(document)
    if part.fingerprint != document["fingerprint"]:
        raise ValueError(
            f"counterexample {str(path)!r} is of {document['role']} law "
            f"{document['fingerprint']}; {document['target']} has {part.fingerprint} now"
        )
    known = {prop.name: prop for prop in properties(part)}
    if document["property"] not in known:
        raise ValueError(f"counterexample {str(path)!r}: unknown property {document['property']!r}")
    prop = known[document["property"]]
    _check_case(path, prop, part.law, document["case"])
    trial = Bench.of(prop, part.law).alone(document["case"])
    try:
        story = prop.story(part.law, document["case"])
    except Exception as error:
        story = [f"the law raises: {error_line(error)}"]
    return Replayed(prop.name, trial, story)


def _part(document: dict[str, Any]) -> Part:
    target = resolve(document["target"])
    if document["role"] in [part.role for part in target.parts]:
        return target.part(document["role"])
    # A role given by hand is not what the law itself would say.
    return resolve(document["target"], document["role"]).part(document["role"])


def _check_case(path: Path, prop: Property, law: Any, case: dict[str, Any]) -> None:
    if isinstance(prop, SelfSearching):
        return  # its cases need not come from a space
    try:
        space = prop.space(law)
    except Exception:
        return  # a hostile law may raise here; measuring reports it
    if set(space) != set(case):
        listed = ", ".join(sorted(set(space) ^ set(case)))
        raise ValueError(f"counterexample {str(path)!r}: the case's parameters differ: {listed}")
    for name, part in space.items():
        if not part.holds(case[name]):
            got = f"{name} = {case[name]!r}"
            raise ValueError(f"counterexample {str(path)!r}: {got} is outside {part}")
