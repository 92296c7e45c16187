"""Rows of text files and their columns: numbered by line, parsed whole, blamed one by one."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from traces.arrivals import ArrivalsError

MOST_TOKENS = 2**31 - 1
COUNTS = f"must be a whole number from 0 to {MOST_TOKENS}"
SHOWN = 60  # characters of a value in an error line
GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1
CLOCKS = "must be a time in UTC, as 2023-11-16 18:01:51.9"
CLOCK = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)

Row = Mapping[str, object]
NumberedRow = tuple[int | str, Row]  # its line, or its place in a file without lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The values of one field, as the file has them, with their lines."""

    path: Path
    name: str
    values: list[object]
    lines: list[int | str]

    def parsed(
        self,
        whole: Callable[[list[object]], np.ndarray],
        one: Callable[[object], float],
        rule: str,
    ) -> np.ndarray:
        """Return the column as an array: ``whole`` at once, or where that fails ``one`` by one.

        The first value that ``one`` refuses is blamed for breaking ``rule``.
        """
        try:
            found = whole(self.values)
        except (ValueError, TypeError, OverflowError):
            found = np.array([self._one(row, one, rule) for row in range(len(self.values))])
        bad = ~np.isfinite(found)
        if bad.any():
            self.blame(int(np.argmax(bad)), "must be finite")
        return found

    def blame(self, row: int, rule: str) -> NoReturn:
        """Raise for the value in ``row``."""
        got = shown(self.values[row])
        raise ArrivalsError(f"{self.path}:{self.lines[row]}: {self.name}: {rule}; got {got}")

    def _one(self, row: int, one: Callable[[object], float], rule: str) -> float:
        try:
            return one(self.values[row])
        except (ValueError, TypeError, OverflowError):
            self.blame(row, rule)


def shown(value: object) -> str:
    """Return ``value`` as an error line quotes it: a few hundred digits would hide the rest."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def counts(column: Column) -> np.ndarray:
    """Return whole numbers >= 0, int64."""
    found = column.parsed(_whole_counts, _count, COUNTS).astype(np.int64)
    outside = (found < 0) | (found > MOST_TOKENS)
    if outside.any():
        column.blame(int(np.argmax(outside)), COUNTS)
    return found


def seconds(column: Column, unit_s: float) -> np.ndarray:
    """Return times in units of ``unit_s`` seconds as seconds from the earliest, float64."""
    found = column.parsed(_whole_numbers, number, "must be a number")
    if len(found) and found.min() < 0.0:
        column.blame(int(np.argmax(found < 0.0)), "must be >= 0")
    # Nanoseconds since the epoch exceed a double's 53 bits: whole numbers are subtracted as such.
    found = (found - found.min()).astype(np.float64) if len(found) else found
    return found * unit_s if unit_s >= 1.0 else found / round(1.0 / unit_s)


def clock_s(column: Column) -> np.ndarray:
    """Return wall-clock times, UTC, as seconds from the earliest, float64."""
    found = column.parsed(_whole_clocks, _clock, CLOCKS)
    return (found - found.min()) / 1e6 if len(found) else found


def number(value: object) -> float:
    """Return a JSON number or the number a text holds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a number")
    return float(value)


def open_text(path: Path) -> TextIO:
    """Open ``path``, through gzip where its first bytes say so, whatever it is called."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def csv_rows(
    file: TextIO, names: list[str], path: Path, lines_before: int
) -> Iterator[NumberedRow]:
    """Yield the rows of a CSV file below its header; empty cells past its last column are let be.

    A row with more cells than columns would be read shifted (``1,020`` for 1020): it is refused.
    """
    reader = csv.reader(file)
    for values in reader:
        if values:
            line = reader.line_num + lines_before
            if any(cell.strip() for cell in values[len(names) :]):
                rule = f"must have a cell for each of {len(names)} columns; got {len(values)}"
                raise ArrivalsError(f"{path}:{line}: row: {rule}")
            missing = [None] * (len(names) - len(values))
            yield line, dict(zip(names, [*values, *missing], strict=False))


def json_rows(file: TextIO, first: str, path: Path, line: int = 1) -> Iterator[NumberedRow]:
    """Yield one object per line; ``first`` has been read already and is line ``line``."""
    for number_, text in enumerate(chain([first], file), start=line):
        if text.strip():
            yield number_, json_row(text, path, number_)


def whole_document(file: TextIO, first: str) -> str:
    """Return ``first``, or where a document only begins there, all of it."""
    begins = first.strip() == "{" or first.lstrip().startswith("[")
    return first + file.read() if begins else first


def json_row(text: str, path: Path, line: int | str) -> dict[str, Any]:
    """Return the object of one line."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArrivalsError(f"{path}:{line}: must be JSON: {error}") from error
    if not isinstance(row, dict):
        raise ArrivalsError(f"{path}:{line}: must be a JSON object; got {text.strip()[:40]!r}")
    return row


def _whole_counts(values: list[object]) -> np.ndarray:
    if all(type(value) is int for value in values):
        return np.array(values, np.int64)
    if not all(type(value) is str for value in values):
        raise ValueError("mixed")
    return np.array([int(str(value)) for value in values], np.int64)


def _count(value: object) -> float:
    found = number(value)
    if found != int(found) or not 0 <= found <= MOST_TOKENS:
        raise ValueError("not a count")
    return int(found)


def _whole_numbers(values: list[object]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return np.array(values, np.int64)
    if kinds <= {int, float}:
        return np.array(values, np.float64)
    if kinds != {str}:
        raise ValueError("mixed")
    return np.array([number(value) for value in values])  # numpy would drop a NUL at the end


def _whole_clocks(values: list[object]) -> np.ndarray:
    texts = [_utc(value) for value in values]
    times = np.array(texts, "datetime64[us]")
    if np.isnat(times).any():
        raise ValueError("not a time")
    return times.astype(np.int64)


def _clock(value: object) -> float:
    time = np.datetime64(_utc(value), "us")
    if np.isnat(time):
        raise ValueError("not a time")
    return int(time.astype(np.int64))


def _utc(value: object) -> str:
    text = str(value).strip().removesuffix("Z").removesuffix("+00:00")
    if not CLOCK.fullmatch(text):  # numpy would warn of some other texts, and take them for UTC
        raise ValueError("not a time in UTC")
    return text
