"""Arrival traces: when requests came and how long they were, from files or a Poisson process.

Formats are told apart by their columns, not by name; ``.gz`` is read as is.

================  ========================================================  ==============
source            columns                                                   time unit
================  ========================================================  ==============
azure-2023        TIMESTAMP, ContextTokens, GeneratedTokens                 UTC wall clock
mooncake          timestamp, input_length, output_length (JSON lines)       milliseconds
burstgpt          Timestamp, Request tokens, Response tokens                seconds
vidur             arrived_at, num_prefill_tokens, num_decode_tokens         seconds
================  ========================================================  ==============
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np

Row = Mapping[str, object]


class ArrivalsError(ValueError):
    """An arrival trace that cannot be used. One line: the file, the line, the field, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Arrivals in time order; the first is at 0. Lengths are None where the source has none."""

    times_s: np.ndarray  # float64 [n], seconds from the first arrival, non-decreasing
    prompt_tokens: np.ndarray | None  # int64 [n], >= 1
    output_tokens: np.ndarray | None  # int64 [n], >= 1
    source: str  # format name and file name, or the process that drew them
    dropped: int = 0  # rows the source marks as failed (BurstGPT: a length of 0)

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def rate_per_s(self) -> float:
        """Mean arrival rate: intervals over span; NaN for fewer than two distinct times."""
        span_s = float(self.times_s[-1]) if len(self) else 0.0
        return (len(self) - 1) / span_s if span_s > 0 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    name: str
    time: str
    prompt: str
    output: str
    seconds: Callable[[object], float]
    zero_is_failure: bool = False


def _clock_s(value: object) -> float:
    # Nanoseconds since the epoch exceed a double's 53 bits; microseconds fit.
    time = np.datetime64(str(value), "us")
    if np.isnat(time):
        raise ValueError("not a time")
    return int(time.astype(np.int64)) / 1e6


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a number")
    return float(value)


FORMATS = (
    _Format(
        name="azure-2023",
        time="TIMESTAMP",
        prompt="ContextTokens",
        output="GeneratedTokens",
        seconds=_clock_s,
    ),
    _Format(
        name="mooncake",
        time="timestamp",
        prompt="input_length",
        output="output_length",
        seconds=lambda value: _number(value) / 1000.0,
    ),
    _Format(
        name="burstgpt",
        time="Timestamp",
        prompt="Request tokens",
        output="Response tokens",
        seconds=_number,
        zero_is_failure=True,
    ),
    _Format(
        name="vidur",
        time="arrived_at",
        prompt="num_prefill_tokens",
        output="num_decode_tokens",
        seconds=_number,
    ),
)


def read_arrivals(path: Path | str, limit: int | None = None) -> Arrivals:
    """Read the first ``limit`` usable arrivals of a public trace (all of them by default)."""
    path = Path(path)
    if limit is not None and limit < 1:
        raise ArrivalsError(f"limit must be >= 1; got {limit}")
    try:
        with _open_text(path) as file:
            return _read(file, path, limit)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error


def poisson(rate_per_s: float, n: int, rng: np.random.Generator) -> Arrivals:
    """Draw ``n`` Poisson arrivals; the first is at 0 and the gaps are exponential."""
    _check_rate(rate_per_s)
    if n < 1:
        raise ArrivalsError(f"n must be >= 1; got {n}")
    gaps_s = rng.exponential(1.0 / rate_per_s, n - 1)
    times_s = np.concatenate([[0.0], np.cumsum(gaps_s)])
    source = f"poisson({rate_per_s:g}/s)"
    return Arrivals(times_s=times_s, prompt_tokens=None, output_tokens=None, source=source)


def rescaled(arrivals: Arrivals, rate_per_s: float) -> Arrivals:
    """Stretch time so that the mean rate is ``rate_per_s``; burstiness keeps its shape."""
    _check_rate(rate_per_s)
    if math.isnan(arrivals.rate_per_s):
        raise ArrivalsError(f"{arrivals.source}: rescaling needs two arrivals at different times")
    times_s = arrivals.times_s * (arrivals.rate_per_s / rate_per_s)
    return replace(
        arrivals, times_s=times_s, source=f"{arrivals.source} rescaled to {rate_per_s:g}/s"
    )


def _check_rate(rate_per_s: float) -> None:
    if not 0.0 < rate_per_s < math.inf:
        raise ArrivalsError(f"rate_per_s must be finite and > 0; got {rate_per_s!r}")


def _read(file: TextIO, path: Path, limit: int | None) -> Arrivals:
    shape, rows = _detect(file, path)
    kept: list[tuple[float, int, int]] = []
    dropped = 0
    for line, row in rows:
        time_s = _field(row, shape.time, shape.seconds, path, line)
        prompt = _field(row, shape.prompt, _tokens, path, line)
        output = _field(row, shape.output, _tokens, path, line)
        if min(prompt, output) >= 1:
            kept.append((time_s, prompt, output))
        elif shape.zero_is_failure:
            dropped += 1
        else:
            name, got = (shape.prompt, prompt) if prompt < 1 else (shape.output, output)
            raise ArrivalsError(f"{path}:{line}: {name}: must be >= 1; got {got}")
        if len(kept) == limit:
            break
    if not kept:
        raise ArrivalsError(f"{path}: holds no arrivals")
    times_s, prompts, outputs = (np.array(column) for column in zip(*kept, strict=True))
    order = np.argsort(times_s, kind="stable")  # vidur and merged logs are not always in order
    return Arrivals(
        times_s=times_s[order] - times_s[order[0]],
        prompt_tokens=prompts[order].astype(np.int64),
        output_tokens=outputs[order].astype(np.int64),
        source=f"{shape.name}:{path.name}",
        dropped=dropped,
    )


def _detect(file: TextIO, path: Path) -> tuple[_Format, Iterator[tuple[int, Row]]]:
    first = file.readline()
    rows = _json_rows(file, first, path) if first.lstrip().startswith("{") else None
    names = list(_json_row(first, path, 1)) if rows else next(csv.reader([first]), [])
    for shape in FORMATS:
        if {shape.time, shape.prompt, shape.output} <= set(names):
            return shape, rows or _csv_rows(file, names)
    known = "; ".join(f"{f.name}: {f.time}, {f.prompt}, {f.output}" for f in FORMATS)
    raise ArrivalsError(f"{path}:1: columns {names} match no known format ({known})")


def _csv_rows(file: TextIO, names: list[str]) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(file, fieldnames=names)
    for row in reader:
        yield reader.line_num + 1, row


def _json_rows(file: TextIO, first: str, path: Path) -> Iterator[tuple[int, Row]]:
    for line, text in enumerate(chain([first], file), start=1):
        if text.strip():
            yield line, _json_row(text, path, line)


def _json_row(text: str, path: Path, line: int) -> Row:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ArrivalsError(f"{path}:{line}: must be JSON: {error}") from error
    if not isinstance(row, dict):
        raise ArrivalsError(f"{path}:{line}: must be a JSON object; got {text.strip()[:40]!r}")
    return row


Number = TypeVar("Number", int, float)


def _field(row: Row, name: str, parse: Callable[[object], Number], path: Path, line: int) -> Number:
    value = row.get(name)
    try:
        number = parse(value)
    except (ValueError, OverflowError):
        raise ArrivalsError(f"{path}:{line}: {name}: cannot be read; got {value!r}") from None
    if not math.isfinite(number):
        raise ArrivalsError(f"{path}:{line}: {name}: must be finite; got {value!r}")
    return number


def _tokens(value: object) -> int:
    number = _number(value)
    if number != int(number) or number < 0:
        raise ValueError("not a count")
    return int(number)


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
