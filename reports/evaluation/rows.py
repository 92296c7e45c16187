"""The file of a run: a header line and one JSON row per finished piece, so a killed run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FORMAT = 1


class RowFile:
    """Appends rows, each whole or not at all; rows of the same key are written once.

    The first line holds the configuration. A file of another one is refused, naming what differs.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Open ``path``, or start it; drop a last line that a killed run left half-written."""
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        header = {"format": FORMAT, "config": json.loads(json.dumps(config))}
        if path.exists() and path.stat().st_size:
            self._read(header)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(header)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Append ``row`` under ``key`` and make sure that it reached the disk."""
        if key in self.rows:
            raise ValueError(f"{self.path}: key must be new; got {key!r}")
        self.rows[key] = json.loads(json.dumps(row))
        self._append({"key": key} | row)

    def ordered(self) -> list[dict[str, Any]]:
        """Return the rows sorted by key: a run that was cut gives the same list as one that ran."""
        return [self.rows[key] for key in sorted(self.rows)]

    def _read(self, header: dict[str, Any]) -> None:
        whole, mark, rest = self.path.read_bytes().rpartition(b"\n")
        try:
            found, *rows = [json.loads(line) for line in whole.splitlines()] if mark else [{}]
            kept = {row.pop("key"): row for row in rows}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{self.path}: not rows of an evaluation: {error!r}") from None
        _refuse_other(self.path, found, header)
        self.rows = kept
        if rest:
            with self.path.open("rb+") as file:
                file.truncate(len(whole) + 1)

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def _refuse_other(path: Path, found: Any, header: dict[str, Any]) -> None:
    if not isinstance(found, dict) or found.get("format") != FORMAT or "config" not in found:
        raise ValueError(f"{path}: not rows of an evaluation; choose another --out")
    old, new = found["config"], header["config"]
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{path}: out holds rows of another configuration: "
            f"{name} is {old.get(name)!r}, not {new.get(name)!r}; choose another --out"
        )
