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
        got = self.values[row]
        raise ArrivalsError(f"{self.path}:{self.lines[row]}: {self.name}: {rule}; got {got!r}")

    def _one(self, row: int, one: Callable[[object], float], rule: str) -> float:
        try:
            return one(self.values[row])
        except (ValueError, TypeError, OverflowError):
            self.blame(row, rule)


def counts(column: Column) -> np.ndarray:
    """Return whole numbers >= 0, int64."""
    found = column.parsed(_whole_counts, _count, COUNTS).astype(np.int64)
    outside = (found < 0) | (found > MOST_TOKENS)
    if outside.any():
        column.blame(int(np.argmax(outside)), COUNTS)
    return found


def seconds(column: Column, unit_s: float) -> np.ndarray:
    """Return times in units of ``unit_s`` seconds as seconds, float64, >= 0."""
    found = column.parsed(_whole_numbers, number, "must be a number").astype(np.float64)
    if len(found) and found.min() < 0.0:
        column.blame(int(np.argmax(found < 0.0)), "must be >= 0")
    return found * unit_s if unit_s >= 1.0 else found / round(1.0 / unit_s)


def clock_s(column: Column) -> np.ndarray:
    """Return wall-clock times, UTC, as seconds since the epoch, float64."""
    # Nanoseconds since the epoch exceed a double's 53 bits; microseconds fit.
    return column.parsed(_whole_clocks, _clock, CLOCKS)


def number(value: object) -> float:
    """Return a JSON number or the number a text holds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a number")
    return float(value)


def open_text(path: Path) -> TextIO:
    """Open ``path``, through gzip where it ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def csv_rows(file: TextIO, names: list[str], lines_before: int) -> Iterator[NumberedRow]:
    """Yield the rows of a CSV file below its header."""
    reader = csv.reader(file)
    for values in reader:
        if values:
            line = reader.line_num + lines_before
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
    except ValueError as error:
        raise ArrivalsError(f"{path}:{line}: must be JSON: {error}") from error
    if not isinstance(row, dict):
        raise ArrivalsError(f"{path}:{line}: must be a JSON object; got {text.strip()[:40]!r}")
    return row


def _whole_counts(values: list[object]) -> np.ndarray:
    if all(type(value) is int for value in values):
        return np.array(values, np.int64)
    if not all(type(value) is str for value in values):
        raise ValueError("mixed")
    return np.array(values).astype(np.int64)


def _count(value: object) -> float:
    found = number(value)
    if found != int(found) or not 0 <= found <= MOST_TOKENS:
        raise ValueError("not a count")
    return int(found)


def _whole_numbers(values: list[object]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return np.array(values, np.float64)
    if kinds != {str}:
        raise ValueError("mixed")
    return np.array(values).astype(np.float64)


def _whole_clocks(values: list[object]) -> np.ndarray:
    texts = [_utc(value) for value in values]
    times = np.array(texts, "datetime64[us]")
    if np.isnat(times).any():
        raise ValueError("not a time")
    return times.astype(np.int64) / 1e6


def _clock(value: object) -> float:
    time = np.datetime64(_utc(value), "us")
    if np.isnat(time):
        raise ValueError("not a time")
    return int(time.astype(np.int64)) / 1e6


def _utc(value: object) -> str:
    text = str(value).strip().removesuffix("Z").removesuffix("+00:00")
    if not CLOCK.fullmatch(text):  # numpy would warn of some other texts, and take them for UTC
        raise ValueError("not a time in UTC")
    return text
