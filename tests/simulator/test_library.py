"""A prepared trace comes back from the cache as it went in, or is prepared again."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator import library
from simulator.library import Library, load_library
from traces.columns import TraceError
from traces.synth import SyntheticShape, write_synthetic

CHILD = """
import sys
from pathlib import Path
from simulator.library import load_library
found = load_library(sys.argv[1], cache=Path(sys.argv[2]))
heavy = [name for name in ("pyarrow", "scipy", "pandas", "matplotlib") if name in sys.modules]
print(len(found.requests), found.vocabulary, heavy)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "trace.parquet"
    write_synthetic(target, SyntheticShape(), seed=7)
    return target


def assert_same(one: Library, other: Library) -> None:
    assert (one.sha256, one.metadata, one.requests) == (
        other.sha256,
        other.metadata,
        other.requests,
    )
    assert one.vocabulary == other.vocabulary
    for part in ("model", "residual"):
        _assert_same_fields(getattr(one, part), getattr(other, part))


def _assert_same_fields(one: object, other: object) -> None:
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if dataclasses.is_dataclass(mine):
            _assert_same_fields(mine, theirs)
        elif isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, field.name
            assert np.array_equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name


def folder_of(cache: Path) -> Path:
    (folder,) = (cache / "traces").iterdir()
    return folder


def counting(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note every time a trace is prepared."""
    prepared: list[Path] = []
    real = library._prepared

    def prepare(path: Path) -> Library:
        prepared.append(path)
        return real(path)

    monkeypatch.setattr(library, "_prepared", prepare)
    return prepared


def test_a_library_is_prepared_once_and_comes_back_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = counting(monkeypatch)
    first = load_library(path, cache=tmp_path / "cache")
    again = load_library(path, cache=tmp_path / "cache")
    assert prepared == [path]
    assert_same(first, again)
    assert not again.model.curves.h_terms.flags.writeable
    assert type(again.model.curves.h_terms) is np.ndarray
    assert [p.name for p in (tmp_path / "cache" / "traces").iterdir()] == [
        folder_of(tmp_path / "cache").name
    ]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "text", "no_text"])
def test_damage_is_found_and_mended(
    damage: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, cache = counting(monkeypatch), tmp_path / "cache"
    first = load_library(path, cache=cache)
    folder = folder_of(cache)
    target = folder / ("contents.txt" if "text" in damage else "h_terms.npy")
    content = bytearray(target.read_bytes())
    if damage in ("flip", "text"):
        content[len(content) // 2] ^= 4
        target.write_bytes(content)
    elif damage == "truncate":
        target.write_bytes(content[:-8])
    else:
        target.unlink()
    assert_same(first, load_library(path, cache=cache))
    assert len(prepared) == 2
    assert_same(first, load_library(path, cache=cache))
    assert len(prepared) == 2


def test_another_trace_and_another_version_are_prepared_anew(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, cache = counting(monkeypatch), tmp_path / "cache"
    load_library(path, cache=cache)
    write_synthetic(path, SyntheticShape(), seed=8)
    other = load_library(path, cache=cache)
    assert len(prepared) == 2
    assert other.sha256 == load_library(path, cache=cache).sha256
    monkeypatch.setattr(library, "FORMAT", library.FORMAT + 1)
    load_library(path, cache=cache)
    assert len(prepared) == 3


def test_a_cache_that_cannot_be_written_costs_time_only(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = counting(monkeypatch)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is wanted")
    first = load_library(path, cache=blocked)
    assert_same(first, load_library(path, cache=blocked))
    assert len(prepared) == 2
    assert blocked.read_text() == "a file where a folder is wanted"


def test_the_second_start_imports_nothing_heavy(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(path), str(tmp_path / "cache")]
    run = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ}, timeout=60
        ).stdout.split(" ", 2)
        for _ in range(2)
    ]
    assert run[0][:2] == run[1][:2]
    assert "pyarrow" in run[0][2]
    assert run[1][2].strip() == "[]"


def test_a_trace_that_is_missing_or_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.parquet"):
        load_library(tmp_path / "missing.parquet", cache=tmp_path)
    (tmp_path / "none.parquet").write_bytes(b"not a trace")
    with pytest.raises(TraceError, match="readable Parquet"):
        load_library(tmp_path / "none.parquet", cache=tmp_path)
    assert not (tmp_path / "traces").exists()
