"""Traces of entropy intervals: what a server's top-k log-probabilities let one know, per token.

One JSON line for the file (``entropic_intervals``, model, vocabulary, which distribution, source,
licence), then one per request with ``h_low``, ``h_high`` (nats), ``surprisal`` (-ln p of the token
sampled) and ``top_mass`` (probability of the known tokens), a number per generated token.

They may be described and drawn. They cannot be simulated: entropy at another temperature needs the
whole row of logits (dH/d ln T = V), and the rest of the mass is exactly what is missing; and they
hold neither varentropy nor attention. ``entropic record`` makes traces that can be.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traces.arrivals import ArrivalsError
from traces.atomic import atomic_path
from traces.import_text import json_row, open_text
from traces.text import number

KEY, VERSION = "entropic_intervals", 1
SUFFIXES = (".jsonl", ".jsonl.gz")
COLUMNS = ("h_low", "h_high", "surprisal", "top_mass")
NARROW_NATS = 0.05
ROUNDING = 1e-9
WARNING = (
    "entropy intervals cannot be simulated: other temperatures need whole rows of logits, "
    "pruning needs attention; entropic record makes such traces"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRequest:
    """One request of an interval trace."""

    request: int
    name: str  # the server's id
    prompt_tokens: int | None
    tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalTrace:
    """Entropy intervals of every generated token, float64 ``[rows]``, request by request."""

    requests: tuple[IntervalRequest, ...]
    h_low: np.ndarray  # nats
    h_high: np.ndarray  # nats
    surprisal: np.ndarray  # nats
    top_mass: np.ndarray  # in [0, 1]
    model: str
    vocabulary: int
    processed: bool  # whether the distribution is the one after temperature and penalties
    source: str
    licence: str = ""

    def __post_init__(self) -> None:
        rows = sum(request.tokens for request in self.requests)
        rules = {
            "must be finite": lambda name: np.isfinite(getattr(self, name)),
            "must be >= 0": lambda name: getattr(self, name) >= -ROUNDING,
        }
        for name in COLUMNS:
            if len(getattr(self, name)) != rows:
                raise ArrivalsError(f"{name}: must have {rows} values, one per token")
            for rule, holds in rules.items():
                good = holds(name)
                if not good.all():
                    row = int(np.argmin(good))
                    raise ArrivalsError(f"{name}: {rule}; got {getattr(self, name)[row]} at {row}")
        for name, good in {
            "h_low must be <= h_high": self.h_low <= self.h_high + ROUNDING,
            "h_high must be <= ln(vocabulary)": self.h_high <= math.log(self.vocabulary) + 1e-6,
            "top_mass must be <= 1": self.top_mass <= 1.0 + ROUNDING,
        }.items():
            if not good.all():
                raise ArrivalsError(f"{name}; token {int(np.argmin(good))} breaks it")

    def by_position(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean ``h_low`` and ``h_high``, and how many requests, at each position."""
        lengths = [request.tokens for request in self.requests]
        position = np.concatenate([np.arange(n) for n in lengths])
        count = np.bincount(position)
        low, high = (np.bincount(position, h) / count for h in (self.h_low, self.h_high))
        return low, high, count


def describe_intervals(trace: IntervalTrace) -> dict[str, Any]:
    """Summarise an interval trace as plain JSON values; entropies in nats."""
    width = trace.h_high - trace.h_low
    return {
        "requests": len(trace.requests),
        "tokens": len(width),
        "model": trace.model,
        "vocabulary": trace.vocabulary,
        "distribution": "after temperature and penalties" if trace.processed else "at T = 1",
        "h_low_mean": float(trace.h_low.mean()),
        "h_high_mean": float(trace.h_high.mean()),
        "width_mean": float(width.mean()),
        "width_p50": float(np.quantile(width, 0.5)),
        "width_p95": float(np.quantile(width, 0.95)),
        "width_max": float(width.max()),
        f"share_narrower_than_{NARROW_NATS:g}_nat": float((width <= NARROW_NATS).mean()),
        "top_mass_mean": float(trace.top_mass.mean()),
        "surprisal_mean": float(trace.surprisal.mean()),
        "source": trace.source,
        "licence": trace.licence or None,
        "note": WARNING,
    }


def intervals_report(found: dict[str, Any]) -> str:
    """Return ``describe_intervals`` as text."""
    width = max(map(len, found))
    shown = {k: number(v) if isinstance(v, int | float) else str(v) for k, v in found.items()}
    return "".join(f"{name:{width}}  {value}\n" for name, value in shown.items())


def check_target(path: Path) -> None:
    """Raise where an interval trace cannot be written."""
    if not path.name.endswith(SUFFIXES) or not path.parent.is_dir():
        where = "in an existing folder"
        raise ArrivalsError(f"out must end in one of {SUFFIXES}, {where}; got {str(path)!r}")


def write_intervals(path: Path, trace: IntervalTrace) -> None:
    """Write ``trace`` to ``path``, or nothing."""
    check_target(path)
    head = {KEY: VERSION}
    head |= {
        n: getattr(trace, n) for n in ("model", "vocabulary", "processed", "source", "licence")
    }
    lines, start = [json.dumps(head)], 0
    for request in trace.requests:
        stop = start + request.tokens
        columns = {name: getattr(trace, name)[start:stop].tolist() for name in COLUMNS}
        lines.append(json.dumps(asdict(request) | columns, allow_nan=False))
        start = stop
    body = ("\n".join(lines) + "\n").encode()
    with atomic_path(path) as part:
        part.write_bytes(gzip.compress(body, mtime=0) if path.suffix == ".gz" else body)


def is_intervals(path: Path) -> bool:
    """Return whether ``path`` is an interval trace; False if it cannot be read."""
    try:
        with open_text(path) as file:
            return f'"{KEY}"' in file.readline(4096)
    except (OSError, EOFError, UnicodeDecodeError):
        return False


def read_intervals(path: Path) -> IntervalTrace:
    """Read and check an interval trace; raises ``ArrivalsError``, one line."""
    try:
        with open_text(path) as file:
            head = json_row(file.readline(), path, 1)
            rows = [json_row(text, path, line) for line, text in enumerate(file, start=2)]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error
    if head.get(KEY) != VERSION:
        raise ArrivalsError(f"{path}:1: {KEY}: must be {VERSION}; got {head.get(KEY)!r}")
    try:
        columns = {
            name: np.array([v for row in rows for v in _numbers(row[name])], np.float64)
            for name in COLUMNS
        }
        found: dict[str, Any] = {name: value for name, value in head.items() if name != KEY}
        names = ("request", "name", "prompt_tokens", "tokens", "finish_reason")
        requests = tuple(IntervalRequest(**{name: row[name] for name in names}) for row in rows)
        return IntervalTrace(requests=requests, **columns, **found)
    except (KeyError, TypeError, ValueError) as error:
        raise ArrivalsError(f"{path}: {error}") from None


def _numbers(values: object) -> list[float]:
    if not isinstance(values, list):
        raise TypeError(f"must be a list of numbers; got {values!r}")
    return values
