"""A stage in a process of its own cannot take the run down with it, however it ends."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from reports.gpu import __main__ as gpu
from reports.gpu.apart import HERE, run_apart, run_group, stage_command
from reports.gpu.record import read_rows

WRITES = """
import json, os, sys, time
path, status, last = sys.argv[1:]
rows = [{"what": "copy", "bytes_per_s": 1.0}]
json.dump({"stage": "bandwidth", "status": status, "rows": rows}, open(path, "w"))
{"exit": lambda: None, "abort": os.abort, "hang": lambda: time.sleep(60)}[last]()
"""


def ended(folder: Path, status: str, last: str, *, limit_s: float = 20.0) -> str:
    path = folder / "bandwidth.json"
    command = [sys.executable, "-S", "-c", WRITES, str(path), status, last]
    return run_apart(command, path, limit_s=limit_s, folder=folder)


@pytest.mark.parametrize("status", ["done", "failed", "out of time"])
def test_a_stage_that_ends_by_itself_keeps_its_record(tmp_path, status):
    assert ended(tmp_path, status, "exit") == status
    assert [row["what"] for row in read_rows(tmp_path, "bandwidth")] == ["copy"]


def test_a_stage_whose_process_dies_keeps_its_rows_and_is_failed(tmp_path):
    assert ended(tmp_path, "running", "abort") == "failed"
    rows = read_rows(tmp_path, "bandwidth")
    assert rows[0]["bytes_per_s"] == 1.0
    assert rows[1]["error"] == "the stage's process: exit code -6"
    assert json.loads((tmp_path / "bandwidth.json").read_text())["status"] == "failed"


def test_a_stage_that_hangs_is_killed(tmp_path):
    began = time.monotonic()
    path = tmp_path / "log"
    command = [sys.executable, "-S", "-c", "import time; print(1, flush=True); time.sleep(60)"]
    said = run_group(command, limit_s=0.5, folder=tmp_path, output=path)
    assert said == "killed after 0.5 s"
    assert path.read_text().strip() in ("", "1")
    assert time.monotonic() - began < 50.0


def test_a_record_of_an_older_run_is_not_taken_for_this_ones(tmp_path):
    path = tmp_path / "bandwidth.json"
    path.write_text(json.dumps({"stage": "bandwidth", "status": "done", "rows": [{"what": "x"}]}))
    command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    assert run_apart(command, path, limit_s=20.0, folder=tmp_path) == "failed"
    (row,) = read_rows(tmp_path, "bandwidth")
    assert row["error"] == "the stage's process: exit code 3"


def test_the_stage_asked_for_last_is_the_one_that_runs():
    command = stage_command(["--stages", "kernels,loop", "--seconds", "60"], "loop")
    asked = gpu._parse(command[3:])
    assert (asked.stages, asked.seconds, asked.here) == ("loop", 60.0, True)
    assert command[-1] == HERE
