"""Rows of the public prompt files, and a seeded choice among them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from controllers.core import require

Row = TypeVar("Row")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a gzipped JSON-lines file; ``ValueError`` names the file, and the line that is bad."""
    rows = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise ValueError(f"{path}:{number}: not JSON: {error}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    return rows


def chosen(rows: list[Row], n: int, rng: np.random.Generator, task: str) -> list[tuple[int, Row]]:
    """Return ``n`` of ``rows`` with their numbers, in random order without replacement."""
    require(n <= len(rows), f"n must be <= {len(rows)} for task {task!r} at this context", n=n)
    return [(int(i), rows[i]) for i in rng.permutation(len(rows))[:n]]
