"""The decision log on disk: JSON lines that say why each request ran, waited or gave way.

Rows are those of ``controllers.serving.decisions.DecisionLog``; each gains the number of its
``replica``. A decode row that reads only some pages gains a last value: the share of them that the
recording kept, mean over layers and heads. Only runs in mode ``online`` can be asked why.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from controllers.core import require
from controllers.serving.decisions import DecisionLog, DecisionRow
from simulator.trajectories import Trajectories
from traces.atomic import atomic_path
from traces.console import check_target as check_place
from traces.provenance import KEY

if TYPE_CHECKING:
    from controllers.presets import Preset
    from simulator.scenario import Scenario

SCHEMA = "entropic-decisions"
VERSION = 1
SUFFIXES = (".jsonl", ".gz")

Kept = Callable[[int, int], float]  # request id, position of the token -> share of pages read
Witnesses = Callable[[int], DecisionLog]  # replica -> who is told


def check_decisions_target(path: Path) -> None:
    """Raise where a decision log cannot be written, before the run that would fill it."""
    require(path.suffix in SUFFIXES, f"decisions must end in one of {SUFFIXES}", path=str(path))
    check_place("decisions", path)


@contextmanager
def decision_file(
    path: Path,
    *,
    kept: Kept | None = None,
    leading: int = 32,
    made: Mapping[str, object] | None = None,
) -> Iterator[Witnesses]:
    """Yield who is told on each replica; write the log to ``path`` whole, or nothing on an error.

    ``leading`` bounds the rankings that are kept (see ``DecisionLog``), ``kept`` tells the share
    of pages behind a sparse row; without it those rows end before it. The header says what
    ``made`` the log (``traces.provenance``). ``.gz`` compresses.
    """
    check_decisions_target(path)
    with atomic_path(path) as part, _writing(part, compressed=path.suffix == ".gz") as file:
        header = {"kind": "header", "now_ns": 0, "schema": SCHEMA, "version": VERSION}
        _write(file, header if made is None else {**header, KEY: made})
        yield _witnesses(lambda row: _write(file, row), kept, leading)


def collected(rows: list[DecisionRow], *, kept: Kept | None = None, leading: int = 32) -> Witnesses:
    """Return witnesses that append to ``rows`` instead of a file."""
    return _witnesses(rows.append, kept, leading)


def kept_by(scenario: Scenario, preset: Preset, seed: int) -> Kept:
    """Return the share of pages that the sparse rows of a scenario's run read, by the recording."""
    found = Trajectories(
        scenario.model,
        replace(scenario.residual, seed=seed),
        scenario.profile.served(preset),
        scenario.workload(seed).arrivals,
        seed=seed,
    )
    return lambda request_id, position: float(found.of(request_id).share[position])


def read_decisions(path: Path) -> Iterator[DecisionRow]:
    """Yield the rows of a decision log but its header; errors name the line."""
    number = 0
    with _reading(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path.name}, line {number}: must be JSON; {error}") from error
            if number > 1:
                yield row
                continue
            found = (row.get("schema"), row.get("version")) if isinstance(row, dict) else row
            require(
                found == (SCHEMA, VERSION),
                f"{path.name} must be a decision log, {SCHEMA} version {VERSION}",
                found=found,
            )
    require(number > 0, "a decision log must not be empty", path=str(path))


def _witnesses(sink: Callable[[DecisionRow], None], kept: Kept | None, leading: int) -> Witnesses:
    return lambda replica: DecisionLog(_Completed(sink, replica, kept), leading=leading)


class _Completed:
    """Adds to the rows of one replica what the serving core does not know; hands them on."""

    def __init__(
        self, sink: Callable[[DecisionRow], None], replica: int, kept: Kept | None
    ) -> None:
        self._sink, self._replica, self._kept = sink, replica, kept
        self._prompts: dict[int, int] = {}

    def __call__(self, row: DecisionRow) -> None:
        found = {**row, "replica": self._replica}
        if row["kind"] == "arrived":
            self._prompts[row["request_id"]] = row["prompt_tokens"]
        elif row["kind"] == "left":
            del self._prompts[row["request_id"]]
        elif self._kept is not None:
            found["rows"] = [self._with_share(one, self._kept) for one in row["rows"]]
        self._sink(found)

    def _with_share(self, row: list[Any], kept: Kept) -> list[Any]:
        request_id, _, start, n_tokens, coverage = row[:5]
        if coverage >= 1.0:
            return row
        return [*row, kept(request_id, start + n_tokens - self._prompts[request_id])]


def _write(file: IO[str], row: DecisionRow) -> None:
    file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")


@contextmanager
def _writing(path: Path, *, compressed: bool) -> Iterator[IO[str]]:
    if not compressed:
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    with (
        path.open("wb") as raw,
        # No name and no time in it: equal runs give equal bytes.
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as file,
    ):
        yield file


@contextmanager
def _reading(path: Path) -> Iterator[IO[str]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file
        return
    with path.open(encoding="utf-8") as file:
        yield file
