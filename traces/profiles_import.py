"""Choose the importer, and the engine limits that go with what it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from controllers.serving.limits import EngineLimits
from traces.profile import Profile
from traces.profiles_aiconfigurator import import_aiconfigurator, open_tables
from traces.profiles_devices import estimated_limits, find_device
from traces.profiles_distserve import import_distserve
from traces.profiles_servingsim import import_servingsim, read_meta, resolved_limits
from traces.profiles_shapes import ModelShape, find_shape

DISTSERVE_LIMITS = {"max_seqs": 256, "token_budget": 2048, "max_context": 2048, "page_tokens": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked to import; None where nothing was said."""

    origin: Literal["aiconfigurator", "servingsim", "distserve"]
    model: str
    gpu: str | None = None
    tp: int = 1
    tables: Path | None = None
    engine: Path | None = None  # meta.json of a vLLM run
    pages: int | None = None
    max_seqs: int | None = None
    token_budget: int | None = None
    usd_per_hour: float | None = None
    watts: float | None = None


def imported(wanted: Wanted, *, created: str) -> Profile:
    """Return the profile; limits come from a run's ``meta.json``, else from memory arithmetic.

    A number of pages that the user gives is taken as known; the other limits stay estimates
    unless an engine resolved them.
    """
    if wanted.origin == "aiconfigurator":
        found = _from_aiconfigurator(wanted, created)
    elif wanted.origin == "servingsim":
        found = _from_servingsim(wanted, created)
    else:
        found = _from_distserve(wanted, created)
    price = {"usd_per_hour": wanted.usd_per_hour, "watts": wanted.watts}
    return replace(found, **{name: value for name, value in price.items() if value is not None})


def _from_aiconfigurator(wanted: Wanted, created: str) -> Profile:
    if wanted.gpu is None:
        raise ValueError("--gpu must be given with --from aiconfigurator")
    shape, device = find_shape(wanted.model), find_device(wanted.gpu)
    tables = open_tables(device, wanted.tables)
    found = import_aiconfigurator(shape, device, tp=wanted.tp, created=created, tables=tables)
    if wanted.engine is None:
        return replace(found, limits=_changed(found.limits, wanted))
    limits = _changed(resolved_limits(wanted.engine, shape), wanted)
    return replace(found, limits=limits, limits_estimated=False)


def _from_servingsim(wanted: Wanted, created: str) -> Profile:
    folder = _tables(wanted)
    if wanted.tp != 1:
        raise ValueError(f"--tp must be 1: the profile holds no all-reduce; got {wanted.tp}")
    shape = find_shape(wanted.model)
    if wanted.engine is None:
        limits = _estimated(wanted, shape, read_meta(folder / "meta.yaml")["gpu"])
    else:
        limits = resolved_limits(wanted.engine, shape)
    return import_servingsim(
        folder,
        shape,
        limits=_changed(limits, wanted),
        limits_estimated=wanted.engine is None,
        created=created,
    )


def _from_distserve(wanted: Wanted, created: str) -> Profile:
    if wanted.pages is None:
        raise ValueError("--pages must be given with --from distserve: its file states none")
    return import_distserve(
        _tables(wanted),
        wanted.model,
        tp=wanted.tp,
        limits=_changed({**DISTSERVE_LIMITS, "n_pages": wanted.pages}, wanted),
        limits_estimated=True,
        created=created,
    )


def _estimated(wanted: Wanted, shape: ModelShape, named: str) -> dict[str, int]:
    device = find_device(named.removeprefix("NVIDIA ") if wanted.gpu is None else wanted.gpu)
    return estimated_limits(shape, device)


def _tables(wanted: Wanted) -> Path:
    if wanted.tables is None:
        raise ValueError(f"--tables must be given with --from {wanted.origin}")
    return wanted.tables


def _changed(limits: dict[str, int], wanted: Wanted) -> dict[str, int]:
    """Return the limits with the user's changes, checked."""
    given = {
        "n_pages": wanted.pages,
        "max_seqs": wanted.max_seqs,
        "token_budget": wanted.token_budget,
    }
    changed = {**limits, **{name: value for name, value in given.items() if value is not None}}
    return EngineLimits.from_json(changed).to_json()
