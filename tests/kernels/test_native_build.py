"""Compiling at run time: found once, named by what it depends on, and never fatal."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from kernels.native import build

GOOD = 'extern "C" int answer() { return N; }\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text(GOOD)
    return path


needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler here")


@needs_compiler
def test_a_source_is_compiled_once_for_each_set_of_macros(source, tmp_path):
    cache = tmp_path / "cache"
    for n in (1, 2, 1):
        library = build.compile(source, {"N": n}, cache)
        assert library is not None
        assert library.answer() == n
    files = sorted(cache.iterdir())
    assert len(files) == 4  # a library and its checksum each and no scratch folder is left
    before = [file.stat().st_mtime_ns for file in files]
    assert build.compile(source, {"N": 2}, cache) is not None
    assert [file.stat().st_mtime_ns for file in files] == before


@needs_compiler
def test_a_changed_source_is_compiled_anew(source, tmp_path):
    build.compile(source, {"N": 1}, tmp_path / "cache")
    source.write_text(GOOD.replace("N;", "N + 40;"))
    library = build.compile(source, {"N": 1}, tmp_path / "cache")
    assert library is not None
    assert library.answer() == 41


@needs_compiler
def test_a_source_that_does_not_compile_gives_none_and_one_note(source, tmp_path, caplog):
    source.write_text("this is not C++;\n")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert build.compile(source, {"N": 3}, tmp_path / "cache") is None
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 1
    assert notes[0].startswith(f"{tmp_path.name}/answer.cpp was not compiled (")
    assert not list((tmp_path / "cache").glob("*.so"))


@needs_compiler
@pytest.mark.parametrize("damaged", ["*.so", "*.sum"])
@pytest.mark.parametrize("left", [0, 40])
def test_a_damaged_library_is_compiled_anew_and_never_loaded(
    source, tmp_path, monkeypatch, damaged, left
):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        patched.setattr(build.ctypes, "CDLL", lambda path: path)  # compiled, not mapped
        build.compile(source, {"N": 7}, cache)
    (path,) = cache.glob(damaged)
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    library = build.compile(source, {"N": 7}, cache)
    assert library is not None
    assert library.answer() == 7
    assert len(path.read_bytes()) == len(whole)


def test_without_a_compiler_there_is_none(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build.find_compiler() is None
    assert build.compile(source, {"N": 1}, tmp_path / "cache") is None


def test_the_named_compiler_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "my-c++"
    own.write_text("#!/bin/sh\n")
    own.chmod(own.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(own))
    assert build.find_compiler() == str(own)


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTROPIC_CACHE", str(tmp_path))
    assert build.native_cache() == tmp_path / "native"
