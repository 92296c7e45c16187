"""Files that are written whole or not at all."""

from __future__ import annotations

import errno

import pytest

from traces.atomic import atomic_path


@pytest.mark.parametrize("named", [True, False])
def test_an_error_of_the_disk_names_the_file_that_was_asked_for(tmp_path, named):
    path = tmp_path / "run.json"
    with (
        pytest.raises(OSError, match=r"No space left.*run.json'$") as caught,
        atomic_path(path) as at,
    ):
        at.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", *([str(at)] if named else []))
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_left_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "run.json"):
        (tmp_path / "input.csv").read_text()
    assert caught.value.filename == str(tmp_path / "input.csv")
    assert list(tmp_path.iterdir()) == []
