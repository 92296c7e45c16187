"""A folder of arrays and one JSON text: written whole or not at all, checked when opened."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

CONTENTS = "contents.txt"  # its CRC-32; then JSON: texts, size and CRC-32 of every array's file
READ_BYTES = 1 << 20


class Damaged(ValueError):
    """A folder that is not what was written."""


def write_folder(folder: Path, arrays: dict[str, np.ndarray], texts: dict[str, Any]) -> None:
    """Write ``arrays`` and ``texts`` to ``folder``, in the place of what is there.

    A folder that cannot be written is left out, with a line in the log: it is a cache.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            staged = Path(scratch) / "staged"
            staged.mkdir()
            files = {}
            for name, values in arrays.items():
                np.save(staged / f"{name}.npy", values)
                files[name] = _checksum(staged / f"{name}.npy")
            text = json.dumps({"files": files, "texts": texts}, allow_nan=False)
            crc = zlib.crc32(text.encode())
            (staged / CONTENTS).write_text(f"{crc}\n{text}", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)  # same file system: all of it or nothing
    except OSError as error:  # a full disk, a read-only home, or another process that was first
        log.info("%s is not kept: %s", folder, error)


def read_folder(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what was written, arrays memory-mapped and read-only; ``Damaged`` if it is not that.

    Checksums are taken from the files, not from the mappings, whose pages then stay untouched.
    """
    try:
        crc, _, text = (folder / CONTENTS).read_text(encoding="utf-8").partition("\n")
        if crc != str(zlib.crc32(text.encode())):
            raise Damaged(f"{folder / CONTENTS}: checksum differs")
        contents = json.loads(text)
        files, texts = contents["files"], contents["texts"]
        arrays = {}
        for name, stated in files.items():
            file = folder / f"{name}.npy"
            if _checksum(file) != stated:
                raise Damaged(f"{file}: checksum differs")
            arrays[name] = np.load(file, mmap_mode="r").view(np.ndarray)
    except FileNotFoundError as error:
        raise Damaged(f"{folder}: incomplete") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{folder}: {error}") from error
    return arrays, texts


def _checksum(path: Path) -> list[int]:
    """Return size and CRC-32 of a file."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]
