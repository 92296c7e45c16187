"""Passes over a profile's grid, kept on disk as they are taken, so that a killed run goes on.

JSON lines: what is measured, then a pass a line. A line that was cut off is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from backend.profile_stage import Step
from traces.atomic import atomic_path


def store_path(out: Path) -> Path:
    """Return where the passes of the profile ``out`` are kept until it is written."""
    return out.with_name(f"{out.name}.passes.jsonl")


class PassStore:
    """The passes of one measurement, named by ``header``."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Read what is at ``path``, or begin it.

        Raises ``ValueError`` if it is of another measurement, with the first field that differs.
        """
        self._path = path
        self.passes: list[list[list[Step]]] = []
        header = json.loads(json.dumps(header))
        lines = _whole_lines(path)
        if lines:
            _check_same(path, lines[0], header)
            self.passes = [[[Step(*step) for step in steps] for steps in p] for p in lines[1:]]
        with atomic_path(path) as part:
            part.write_text("".join(_line(row) for row in lines or [header]), encoding="utf-8")

    def add(self, taken: Sequence[Sequence[Step]]) -> None:
        """Append a pass; it is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line([[astuple(step) for step in steps] for steps in taken]))
            file.flush()
            os.fsync(file.fileno())
        self.passes.append([list(steps) for steps in taken])

    def remove(self) -> None:
        """Forget the passes, once the profile is written."""
        self._path.unlink(missing_ok=True)


def _line(row: Any) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _whole_lines(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read: {error}; remove it to start over") from None


def _check_same(path: Path, found: Any, wanted: dict[str, Any]) -> None:
    found = found if isinstance(found, dict) else {}
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise ValueError(
                f"{path}: {name}: passes were measured with {found.get(name)!r}, not "
                f"{wanted[name]!r}; remove it to start over"
            )
