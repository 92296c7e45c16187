"""What a stage writes: one JSON file, whole after every row, and a log of what went by."""

from __future__ import annotations

import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

from traces.atomic import atomic_path

RUNNING, DONE, FAILED, SHORT = "running", "done", "failed", "out of time"
LONGEST = 600  # characters of an error kept
SCHEMA = 1


class Record:
    """The rows of one stage; the file is complete JSON however the process ends."""

    def __init__(self, folder: Path, stage: str, header: dict[str, Any]) -> None:
        """Open ``folder/stage.json`` and append to ``folder/gpu.log``."""
        self.path, self._log = folder / f"{stage}.json", folder / "gpu.log"
        self.stage, self.header = stage, header
        self.status, self.rows = RUNNING, list[dict[str, Any]]()
        self._save()

    def add(self, what: str, **fields: Any) -> dict[str, Any]:
        """Keep one row, NaN and infinities as None, and say it in the log."""
        row = {"what": what, **{name: _plain(value) for name, value in fields.items()}}
        self.rows.append(row)
        self.say(json.dumps(row, allow_nan=False))
        self._save()
        return row

    def failed(self, what: str, error: BaseException, **fields: Any) -> None:
        """Keep a row for something that raised, and its traceback in the log."""
        lines = traceback.format_exception(error)
        text = " ".join(str(error).split())[:LONGEST]
        self.say("".join(lines))
        self.add(what, **fields, error=f"{type(error).__name__}: {text}")

    def finish(self, status: str, seconds: float) -> None:
        """Write how the stage ended."""
        self.status = status
        self.header = {**self.header, "wall_s": round(seconds, 2)}
        self.say(f"stage {self.stage}: {status} after {seconds:.0f} s, {len(self.rows)} rows")
        self._save()

    def say(self, line: str) -> None:
        """Write a line to the log and to stderr."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line.rstrip() + "\n")
        sys.stderr.write(line.rstrip() + "\n")

    def _save(self) -> None:
        document = {
            "schema": SCHEMA,
            "stage": self.stage,
            "status": self.status,
            **self.header,
            "rows": self.rows,
        }
        with atomic_path(self.path) as part:
            part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_rows(folder: Path, stage: str, what: str | None = None) -> list[dict[str, Any]]:
    """Return a stage's rows, all or of one kind; none where the stage did not run."""
    path = folder / f"{stage}.json"
    if not path.is_file():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a stage's record ({error})") from None
    return [row for row in rows if what is None or row["what"] == what]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value
