"""What a benchmark found, and the CSV it is appended to: a line per name, variant, shape, metric.

A file is checked whole before a line is added, and written whole or not at all; one that another
schema wrote is refused by name.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reports.measured import LIBRARIES
from traces.atomic import atomic_path
from traces.console import commit, package_versions

FEWEST_REPEATS = 3  # fewer have no spread to speak of


class BenchError(ValueError):
    """A benchmark that cannot run or a results file that cannot be used; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric of one variant at one shape: a value per repeat, or one value that is exact."""

    name: str  # which benchmark
    variant: str  # who did the work, and with which setting
    shape: str  # "batch=16 context=2048": space-separated name=value pairs
    metric: str
    unit: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or not all(map(math.isfinite, self.values)):
            raise BenchError(f"{self.name} {self.metric} must be finite; got {self.values}")

    @property
    def median(self) -> float:
        """The middle value over repeats."""
        return statistics.median(self.values)


def measure(
    name: str, variant: str, shape: str, metric: str, unit: str, values: Iterable[float]
) -> Measure:
    """Return a measure; with its first three arguments bound, what a benchmark calls."""
    return Measure(
        name=name, variant=variant, shape=shape, metric=metric, unit=unit, values=tuple(values)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Where and when a run was made; the same for all of its lines."""

    device: str
    model: str
    versions: str
    commit: str
    date: str  # ISO 8601, UTC

    @classmethod
    def now(cls, *, device: str, model: str) -> Stamp:
        """Return the stamp of a run that starts now, in this checkout."""
        found = package_versions(*LIBRARIES)
        return cls(
            device=device,
            model=model,
            versions=" ".join(f"{name}={version}" for name, version in found.items()),
            commit=commit(Path(__file__).parent),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One line of the file. ``low`` and ``high`` are the extremes over ``repeats``."""

    name: str
    variant: str
    shape: str
    metric: str
    unit: str
    median: float
    low: float
    high: float
    repeats: int
    device: str
    model: str
    versions: str
    commit: str
    date: str


COLUMNS = tuple(field.name for field in fields(BenchRow))
_NUMBERS = {"median": float, "low": float, "high": float, "repeats": int}


def stamped(measures: Iterable[Measure], stamp: Stamp) -> list[BenchRow]:
    """Return the file's lines for ``measures`` of one run."""
    return [
        BenchRow(
            name=one.name,
            variant=one.variant,
            shape=one.shape,
            metric=one.metric,
            unit=one.unit,
            median=one.median,
            low=min(one.values),
            high=max(one.values),
            repeats=len(one.values),
            **asdict(stamp),
        )
        for one in measures
    ]


def read(path: Path) -> list[BenchRow]:
    """Return every line of a results file; raise ``BenchError`` naming the file and the field."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: not a CSV file: {error}") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        got = ",".join(lines[0]) if lines else "an empty file"
        raise BenchError(f"{path}: columns must be {','.join(COLUMNS)}; got {got}")
    return [_row(path, number, line) for number, line in enumerate(lines[1:], 2)]


def append(path: Path, rows: Sequence[BenchRow]) -> None:
    """Add ``rows`` to ``path``, making file and folder where absent."""
    known = read(path) if path.exists() else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in (*known, *rows):
        writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def shape_of(**sizes: object) -> str:
    """Return ``name=value`` pairs in the order given."""
    return " ".join(f"{name}={value}" for name, value in sizes.items())


def size_in(shape: str, name: str) -> float:
    """Return one number of a shape; raise ``BenchError`` if it has none of that name."""
    found = dict(pair.split("=", 1) for pair in shape.split(" ") if "=" in pair)
    try:
        return float(found[name])
    except (KeyError, ValueError):
        raise BenchError(f"shape must give a number for {name!r}; got {shape!r}") from None


def _cell(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _row(path: Path, number: int, line: list[str]) -> BenchRow:
    if len(line) != len(COLUMNS):
        raise BenchError(f"{path}: line {number}: must have {len(COLUMNS)} cells; got {len(line)}")
    cells: dict[str, object] = dict(zip(COLUMNS, line, strict=True))
    for name, kind in _NUMBERS.items():
        try:
            cells[name] = kind(str(cells[name]))
        except ValueError:
            raise BenchError(
                f"{path}: line {number}: {name} must be a number; got {cells[name]!r}"
            ) from None
    return BenchRow(**cells)  # type: ignore[arg-type]  # the numbers were just converted
