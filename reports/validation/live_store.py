"""A campaign's folder: what was asked, the recording, and each finished run, written at once."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controllers.serving.limits import EngineLimits
from reports.validation.live_load import LiveError, Spec
from reports.validation.live_observed import Observed
from reports.validation.live_play import Played
from traces.atomic import atomic_path

CAMPAIGN, RECORDING, RUNS = "campaign.json", "recording.parquet", "runs"
PARTS = ("requests", "tokens", "steps")
SAME = ("options", "model", "weights_sha256", "device", "arrivals", "text", "limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One finished run of the live engine."""

    spec: Spec
    seen: Observed
    client_ttft_s: np.ndarray  # [R]
    facts: Mapping[str, Any]  # drift, lateness, clock, parity, when

    @classmethod
    def of(cls, spec: Spec, played: Played, facts: Mapping[str, Any]) -> Measured:
        """Read what a run left behind."""
        parity = {
            "plans": played.plans.steps,
            "plans_differing": played.plans.n_differing
            + played.plans.steps
            - played.plans.compared,
            "commands": played.commands.commands,
            "commands_differing": played.commands.n_differing,
        }
        return cls(
            spec=spec,
            seen=Observed.of(played.ledger),
            client_ttft_s=played.client_ttft_s,
            facts={"late_s": played.late_s, "clock_s": played.clock_s, "parity": parity, **facts},
        )


class Folder:
    """Where a campaign lives: ``campaign.json``, ``recording.parquet`` and ``runs/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recording = path / RECORDING

    def begin(self, facts: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
        """Return the campaign's facts: as stored where it goes on, else ``facts``, now stored.

        Raises:
            LiveError: the folder holds a campaign and ``resume`` is off, or another campaign.
        """
        place = self.path / CAMPAIGN
        if not place.is_file():
            (self.path / RUNS).mkdir(parents=True, exist_ok=True)
            _write_json(place, facts)
            return dict(facts)
        if not resume:
            raise LiveError(f"{place}: a campaign is there: give --resume, or another --out")
        stored = _read_json(place)
        for name in (*SAME, "capacity_per_s", "step_law"):
            if name not in stored:
                raise LiveError(f"{place}: {name}: is missing; nothing can be simulated without it")
        given = json.loads(json.dumps(facts))
        for name in SAME:
            if stored[name] != given[name]:
                raise LiveError(
                    f"{place}: {name}: must be that of the campaign that goes on, "
                    f"{_short(stored[name])}; got {_short(given[name])}"
                )
        return stored

    def has(self, spec: Spec) -> bool:
        """Whether a run is finished."""
        return self._run(spec).is_file()

    def write(self, run: Measured) -> None:
        """Store a finished run."""
        spec = run.spec
        header = {**asdict(spec), **run.facts}
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
        arrays["client_ttft_s"] = run.client_ttft_s
        for part in PARTS:
            columns = getattr(run.seen, part)
            arrays |= {f"{part}.{name}": column for name, column in columns.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        with atomic_path(self._run(spec)) as part_path:
            part_path.write_bytes(buffer.getvalue())

    def read(self, spec: Spec) -> Measured:
        """Read a finished run."""
        path = self._run(spec)
        try:
            with np.load(path) as stored:
                facts = json.loads(str(stored["header"]))
                client = stored["client_ttft_s"]
                columns: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
                for key in stored.files:
                    part, _, name = key.partition(".")
                    if name:
                        columns[part][name] = stored[key]
        except (OSError, ValueError, KeyError) as error:
            raise LiveError(f"{path}: is not a finished run: {error}") from None
        return Measured(spec=spec, seen=Observed(**columns), client_ttft_s=client, facts=facts)

    def _run(self, spec: Spec) -> Path:
        return self.path / RUNS / f"{spec.name}.npz"


def limits_of(facts: Mapping[str, Any]) -> EngineLimits:
    """Return the limits that the campaign's engine resolved."""
    return EngineLimits.from_json(dict(facts["limits"]))


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with atomic_path(path) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LiveError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise LiveError(f"{path}: must hold one JSON object; got {type(found).__name__}")
    return found


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
