"""Every stage runs in a dry run, a broken one stops no other, and bad input leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reports.gpu import __main__ as gpu
from reports.gpu.bandwidth import best_copy
from reports.gpu.law_parity import ulps
from reports.gpu.loop import crossover
from reports.gpu.place import Place
from reports.gpu.record import Record, read_rows
from reports.gpu.timing import copies_for, time_calls
from traces.profile import read_profile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert gpu.main(["--dry-run", "--device", "cpu", "--out", str(folder)]) == 0
    torch.set_num_threads(before)
    return folder


@pytest.mark.parametrize("stage", list(gpu.STAGES))
def test_a_stage_runs_dry_without_an_error(out, stage):
    document = json.loads((out / f"{stage}.json").read_text())
    assert document["status"] == "done"
    assert document["dry"] is True
    assert document["rows"]
    assert not [row for row in document["rows"] if "error" in row]


def test_the_checks_that_need_no_gpu_pass(out):
    rows = [row for row in read_rows(out, "correctness") if "passed" in row]
    assert {row["what"] for row in rows if row["passed"] is None} == {"no_sync", "kernel_tests"}
    assert sum(row["passed"] is True for row in rows) == len(rows) - 2


def test_a_held_coverage_keeps_fewer_pages_and_dense_keeps_all(out):
    rows = read_rows(out, "loop", "step")
    kept = {(row["context"], row["variant"]): row["kept_share"] for row in rows}
    assert kept[96, "dense"] == kept[96, "control"] == 1.0
    assert kept[96, "attention 0.1"] < 1.0


def test_the_profile_it_writes_can_be_read(out):
    profile = read_profile(out / "profile-tiny.json")
    assert profile.law.step_s(2, 128, 0, 0) > 0.0
    assert profile.ranges["n_decode"] == (0.0, 2.0)


def test_a_run_leaves_no_more_files_than_come_back(out):
    files = [path for path in out.iterdir() if path.is_file()]
    assert (out / "roofline.png").stat().st_size > 10_000
    assert not [path for path in files if path.name.endswith(".part")]


def test_a_broken_stage_is_recorded_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    def broken(place: Place, record: Record) -> None:
        record.add("first", value=float("nan"))
        raise RuntimeError("the card\nis gone")

    monkeypatch.setattr(gpu, "STAGES", {**gpu.STAGES, "kernels": broken})
    code = gpu.main(
        ["--dry-run", "--device", "cpu", "--stages", "kernels,bandwidth", "--out", str(tmp_path)]
    )
    assert code == 1
    document = json.loads((tmp_path / "kernels.json").read_text())
    assert document["status"] == "failed"
    assert document["rows"][0] == {"what": "first", "value": None}
    assert document["rows"][1]["error"] == "RuntimeError: the card is gone"
    assert json.loads((tmp_path / "bandwidth.json").read_text())["status"] == "done"
    assert "kernels: 2 rows, 1 errors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "speed"], "--stages must name some of bandwidth,"),
        (["--seconds", "0"], "--seconds must lie in (0, 480]; got 0.0"),
        (["--model", "absent"], "--model must be a folder with a config.json; got absent"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys, arguments, message):
    folder = tmp_path / "results"
    assert gpu.main(["--dry-run", "--device", "cpu", "--out", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_only_a_dry_run_is_possible(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "results")]) == 2
    assert "no CUDA device is available; --dry-run" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_stage_out_of_time_says_what_it_left_out(tmp_path):
    place = Place(device=CPU, dry=True, kernels="naive", seconds=0.0)
    record = Record(tmp_path, "kernels", {})
    gpu.kernels(place, record)
    assert {row["what"] for row in record.rows} == {"ceiling", "skipped"}


def test_the_crossover_is_where_the_ratio_passes_one():
    assert crossover([(1000, 1.2), (3000, 0.8)])["tokens"] == 2000
    assert crossover([(1000, 1.2), (3000, 1.1)]) == {"tokens": None, "note": "never up to 3000"}
    assert crossover([(1000, 0.9)])["note"] == "pays from the shortest measured, 1000"
    assert crossover([])["note"] == "not measured"


def test_ulps_count_the_floats_between():
    one, next_to_one = np.float32([1.0]), np.nextafter(np.float32([1.0]), np.float32(2.0))
    assert ulps(one, one) == 0
    assert ulps(one, next_to_one) == 1
    assert ulps(np.float32([-0.0]), np.float32([0.0])) == 0
    assert ulps(np.float32([np.nan]), np.float32([np.nan])) == 0
    assert ulps(np.float32([np.nan]), one) == 1 << 32


def test_the_copy_held_against_is_the_largest():
    rows = [{"what": "copy", "tensor_bytes": 10**n, "bytes_per_s": float(n)} for n in (3, 1, 2)]
    assert best_copy(rows) == 3.0
    assert best_copy([]) is None


def test_inputs_outgrow_the_cache():
    assert copies_for(1) == 16
    assert copies_for(1 << 40) == 1
    assert copies_for(100 << 20) == 3


def test_a_call_is_timed_on_every_input_set():
    seen: list[int] = []
    place = Place(device=CPU, dry=True, kernels="naive")
    timing = time_calls([lambda i=i: seen.append(i) for i in range(3)], place, seconds=0.0)
    assert seen.count(0) == seen.count(2) == timing.repeats + 1
    assert 0.0 <= timing.low_s <= timing.median_s <= timing.high_s
