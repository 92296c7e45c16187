"""Results of simulations on disk, so that a plan that was killed goes on where it stopped.

One JSON object a line, ``{"key": ..., "figures": ...}``, appended whole and flushed to disk. The
key is a hash of everything that determines the figures, the program's own source included, so a
stale line is never read. A line cut short by a crash is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from simulator.plan_figures import Figures

PACKAGES = ("controllers", "simulator", "traces")


class Store:
    """Figures by key; on disk where a path is given, else for this process alone."""

    def __init__(self, path: Path | None = None, *, fresh: bool = False) -> None:
        """Read what is there; ``fresh`` starts anew."""
        self._known: dict[str, Figures] = {}
        self._path = path
        self.read = 0  # lines that were found
        if path is None:
            return
        if fresh:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._load(path)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Tell whoever interrupts what need not be run again."""
        try:
            yield
        except KeyboardInterrupt:
            if self._path is None:
                raise
            found = f"{len(self._known)} simulations are kept in {self._path}"
            raise KeyboardInterrupt(f"{found}, the same command goes on") from None

    def get(self, key: str) -> Figures | None:
        """Return the figures of ``key``, if they are known."""
        return self._known.get(key)

    def put(self, key: str, found: Figures) -> None:
        """Remember figures, on disk before anything else happens."""
        self._known[key] = found
        if self._path is None:
            return
        # In their own order, so that a plan made of what is read here has the bytes of a first one.
        line = json.dumps({"key": key, "figures": dict(found)}, allow_nan=False)
        with self._path.open("ab") as file:
            file.write(line.encode() + b"\n")  # one write: appended whole or cut, never mixed
            file.flush()
            os.fsync(file.fileno())

    def _load(self, path: Path) -> None:
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            with path.open("ab") as file:
                file.write(b"\n")  # so that the next line does not join the torn one
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._known[str(row["key"])] = dict(row["figures"])
            except (ValueError, KeyError, TypeError):
                continue
        self.read = len(self._known)


def digest(value: object) -> str:
    """Return the sha256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def source_digest() -> str:
    """Return the sha256 of the source files that a simulation runs."""
    root = Path(__file__).resolve().parent.parent
    found = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def array_digest(columns: Mapping[str, object]) -> str:
    """Return the sha256 of named numpy arrays (``None`` allowed), bytes and names."""
    import numpy as np

    found = hashlib.sha256()
    for name in sorted(columns):
        rows = columns[name]
        found.update(name.encode() + b"\0")
        if rows is not None:
            found.update(np.ascontiguousarray(np.asarray(rows)).tobytes())
    return found.hexdigest()
