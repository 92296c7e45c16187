"""The file of a run: whole rows, going on after a cut, and refusing another configuration."""

from __future__ import annotations

import pytest

from reports.evaluation.rows import RowFile


def test_rows_come_back_sorted_by_key(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    file = RowFile(path, {"n": 1})
    file.add("b", {"x": 2.5})
    file.add("a", {"x": None})
    again = RowFile(path, {"n": 1})
    assert again.ordered() == [{"x": None}, {"x": 2.5}]
    assert "a" in again
    assert "c" not in again


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_row_cut_anywhere_is_done_again(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    file = RowFile(path, {"n": 1})
    file.add("a", {"x": 1})
    whole = path.read_bytes()
    file.add("b", {"x": 2})
    after = path.read_bytes()
    path.write_bytes(whole + after[len(whole) :][:cut])  # killed while writing the second row
    again = RowFile(path, {"n": 1})
    assert "b" not in again
    again.add("b", {"x": 2})
    assert path.read_bytes() == after


def test_another_configuration_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.jsonl"
    RowFile(path, {"n": 1, "tasks": ["kv"]})
    with pytest.raises(ValueError, match=r"another configuration: n is 1, not 2"):
        RowFile(path, {"n": 2, "tasks": ["kv"]})
    with pytest.raises(ValueError, match=r"m is None, not 3"):
        RowFile(path, {"n": 1, "tasks": ["kv"], "m": 3})


@pytest.mark.parametrize("text", ["hello\n", "{}\n", "[1]\n", '{"format": 1}\n', "no line end"])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="not rows of an evaluation"):
        RowFile(path, {"n": 1})
    assert path.read_text() == text


def test_a_key_is_written_once(tmp_path):
    file = RowFile(tmp_path / "rows.jsonl", {})
    file.add("a", {})
    with pytest.raises(ValueError, match="key must be new"):
        file.add("a", {})
