"""What a user asks to have verified: a preset, a law or sampler of ours, or something of theirs.

``full``, ``EntropyFeedback``, ``package.module:attribute``, ``path/to/file.py:attribute``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from controllers.core import Law, LoadSignal, TokenSignal
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.peers import PEERS
from controllers.preset import Preset
from controllers.presets import PRESETS, get_preset
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.samplers import (
    AdaptiveP,
    DeadBeat,
    DynaTemp,
    Edt,
    EntropixTempTune,
    MinP,
    MirostatV1,
    MirostatV2,
    Pipeline,
    Tempered,
    TopK,
    TopNSigma,
    TopP,
)
from controllers.schedulers import (
    LearnedRank,
    ShortestJob,
    SkipJoinMlfq,
    SrptOracle,
    UserPriority,
    Vtc,
)
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from reports.verify.contract.signals import load_signals, token_signals
from reports.verify.contract.subject import one_step, sets_temperature
from reports.verify.error_line import error_line
from reports.verify.identity import describe_subject, fingerprint_of, label
from reports.verify.serving_subject import ServingSubject, serving_subject

_OURS = (
    FixedTemperature,
    EntropyFeedback,
    SmoothedFeedback,
    SeedLiteral,
    FeedforwardNewton,
    FixedCoverage,
    EntropyCoverage,
    SeedCoverage,
    Fcfs,
    EntropyPriority,
    SeedPriority,
    UserPriority,
    ShortestJob,
    SrptOracle,
    LearnedRank,
    SkipJoinMlfq,
    Vtc,
)
LAWS: Mapping[str, type] = MappingProxyType({law.__name__: law for law in _OURS})
_SAMPLERS = (
    Tempered,
    DeadBeat,
    EntropixTempTune,
    DynaTemp,
    Edt,
    MirostatV1,
    MirostatV2,
    AdaptiveP,
    MinP,
    TopP,
    TopK,
    TopNSigma,
    Pipeline,
)
SAMPLERS: Mapping[str, type] = MappingProxyType({one.__name__: one for one in _SAMPLERS})
LAW_ROLES = ("temperature", "coverage", "priority")
LONE_ROLES = (*LAW_ROLES, "sampler")  # of what is verified without a preset
ROLES = (*LONE_ROLES, "serving")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One subject of the verifier: a law, or the preset or scheduler that serving runs with."""

    role: str  # one of ROLES
    law: Any
    label: str
    fingerprint: str  # taken before the law runs, so that hidden state cannot change it
    description: Any  # JSON: classes and gains
    alone: bool  # not part of a preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What ``spec`` names."""

    spec: str
    subject_name: str
    parts: tuple[Part, ...]

    def part(self, role: str) -> Part:
        """Return the part with ``role``."""
        for part in self.parts:
            if part.role == role:
                return part
        raise ValueError(f"target {self.spec!r} has no {role} part")


def resolve(spec: str, role: str | None = None) -> Target:
    """Return what ``spec`` names; ``role`` overrides what a lone law's methods tell.

    A subclass of our scheduler or page pool is served under the preset ``full``. Raises
    ``ValueError`` that names the target and the cause: nothing called that, an import or a
    constructor that fails, or no law at all.
    """
    if role is not None and role not in LONE_ROLES:
        raise ValueError(f"unknown role {role!r}; known: {', '.join(LONE_ROLES)}")
    subject = _foreign(spec) if ":" in spec else _ours(spec)
    served = serving_subject(subject) if isinstance(subject, type | ServingSubject) else None
    if role is not None and (served is not None or isinstance(subject, Preset)):
        raise ValueError(f"role {role!r} is for a lone law; target {spec!r} brings its own roles")
    if served is not None:
        part = _part("serving", served, alone=True)
        return Target(spec=spec, subject_name=served.name, parts=(part,))
    subject = _constructed(spec, subject) if isinstance(subject, type) else subject
    if isinstance(subject, Preset):
        return _of_preset(spec, subject)
    part = _part(_lone_role(subject, spec, role), subject, alone=True)
    return Target(spec=spec, subject_name=type(subject).__name__, parts=(part,))


def _lone_role(subject: Any, spec: str, role: str | None) -> str:
    if isinstance(subject, Law) and role != "sampler":
        return role or role_of(subject, spec)
    if is_sampler(subject) and role in (None, "sampler"):
        return "sampler"
    kind = type(subject).__name__
    needs = "it needs init and update; a sampler needs init, shape and accept"
    raise ValueError(f"target {spec!r} is a {kind}, not a law: {needs}")


def is_sampler(subject: Any) -> bool:
    """Tell whether ``subject`` has ``init`` and a sampler's own method, complete or not."""
    # An array has a shape, which is no method.
    own = (getattr(subject, name, None) for name in ("shape", "accept"))
    return callable(getattr(subject, "init", None)) and any(callable(method) for method in own)


def role_of(law: Law, spec: str) -> str:
    """Tell which signal a law reads: temperature laws have ``x_in``, the others are tried."""
    if sets_temperature(law):
        return "temperature"
    token = _failure(law, token_signals(1, 2)[0])
    load = _failure(law, load_signals(1, 2)[0])
    if token is None and load is None:
        raise ValueError(f"target {spec!r} takes both signals: say --role coverage or priority")
    if token is None or load is None:
        return "coverage" if token is None else "priority"
    # Both fail: the signal whose fields it did find is the one it was written for.
    return "priority" if _lacks_field(token) and not _lacks_field(load) else "coverage"


def _ours(spec: str) -> Any:
    if spec.endswith(".py"):
        raise ValueError(f"target {spec!r} is a file: say which law, as in {spec}:MyLaw")
    if spec in LAWS or spec in SAMPLERS:
        return LAWS[spec] if spec in LAWS else SAMPLERS[spec]
    try:
        return get_preset(spec)
    except ValueError:
        known = f"presets {', '.join((*PRESETS, *PEERS))}; laws {', '.join(LAWS)}"
        known += f"; samplers {', '.join(SAMPLERS)}"
        ways = "module:attribute; file.py:attribute"
        raise ValueError(f"unknown target {spec!r}; known: {known}; {ways}") from None


def _foreign(spec: str) -> Any:
    module_name, _, path = spec.rpartition(":")
    if not module_name or not path:
        raise ValueError(f"target {spec!r} must read module:attribute or file.py:attribute")
    found: Any = _module(spec, module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ValueError(f"target {spec!r}: {module_name} has no attribute {path!r}") from None
    return found


def _module(spec: str, name: str) -> ModuleType:
    try:
        with _working_folder_importable():
            if name.endswith(".py"):
                return _module_of_file(Path(name))
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"target {spec!r} cannot be imported: {error_line(error)}") from error


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    name = f"entropic_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it loads
    spec.loader.exec_module(module)
    return module


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _constructed(spec: str, subject: type) -> Any:
    try:
        return subject()
    except Exception as error:
        raise ValueError(f"target {spec!r} cannot be constructed: {error_line(error)}") from error


def _of_preset(spec: str, preset: Preset) -> Target:
    laws = {name: getattr(preset, name) for name in LAW_ROLES}
    parts = [_part(role, law, alone=False) for role, law in laws.items()]
    parts.append(_part("serving", preset, alone=False))
    return Target(spec=spec, subject_name=preset.name, parts=tuple(parts))


def _part(role: str, law: Any, *, alone: bool) -> Part:
    return Part(
        role=role,
        law=law,
        label=label(law),
        fingerprint=fingerprint_of(law),
        description=describe_subject(law),
        alone=alone,
    )


def _failure(law: Law, signal: Any) -> Exception | None:
    try:
        one_step(law, signal)
    except Exception as error:
        return error
    return None


def _lacks_field(error: Exception) -> bool:
    return isinstance(error, AttributeError) and isinstance(error.obj, TokenSignal | LoadSignal)
