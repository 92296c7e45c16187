"""Golden folders: what is read, what is refused, and what a right simulation shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from controllers.steplaw import StepLaw
from reports.tables import html_table
from reports.validation.commands import app
from reports.validation.golden import compare, prepare, simulate_run
from reports.validation.section import golden_footer, golden_grid
from reports.validation.sensitivity import sensitivity
from tests.validation.golden_world import (
    CLOCK,
    START,
    attention_us,
    change_meta,
    read_requests,
    write_folder,
    write_meta,
    write_requests,
    write_skew,
)
from traces.golden import GoldenError, golden_folders, read_run

LAYERS = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "card" / "model")


def test_a_run_is_read_with_the_limits_its_engine_resolved(folder: Path):
    run = read_run(folder)
    limits = run.limits
    assert (limits.n_pages, limits.max_seqs, limits.token_budget) == (120, 8, 512)
    assert (limits.page_tokens, limits.prefix_caching, limits.async_scheduling) == (16, True, True)
    assert run.arrival_s[0] == 0.0
    assert (np.diff(run.arrival_s) >= 0.0).all()
    first = read_requests(folder)[0]
    asked = first["first_token_ts"] - CLOCK - (first["arrival_time"] - START) - 0.001
    assert run.ttft_s[0] == pytest.approx(asked, abs=1e-6)


def test_what_was_resolved_goes_before_what_was_asked_for(folder: Path):
    change_meta(folder, "resolved_config", to={"scheduler_config": {"max_num_seqs": 5}})
    assert read_run(folder).limits.max_seqs == 5


def test_steps_cost_the_sum_of_their_kernels(folder: Path):
    law = prepare(folder).law
    rows, kv, chunk, before = 8, 8 * 300, 128, 512
    dense = LAYERS * 6 * (100.0 + 0.6 * (rows + chunk))  # layernorm runs twice
    heads = 2 * (500.0 + rows + 1)
    attention = LAYERS * attention_us(chunk, before, rows, 300)
    squares = chunk * (2 * before + chunk)
    found = law.step_s(rows, kv, chunk, squares, 300)
    assert found == pytest.approx(1e-6 * (dense + heads + attention), rel=1e-9)
    alone = 1e-6 * (LAYERS * (6 * 104.8 + attention_us(0, 0, 8, 300)) + 2 * 508.0)
    assert law.step_s(8, kv, 0, 0, 300) == pytest.approx(alone, rel=1e-9)
    many = law.step_s(np.array([8, 8]), np.array([kv, kv]), np.zeros(2), np.zeros(2), 300.0)
    assert many.tolist() == [law.step_s(8, kv, 0, 0, 300)] * 2


def test_several_prompts_cost_less_than_one_of_their_length(folder: Path):
    law = prepare(folder).law
    one, two = (law.step_s(0, 0, 512, squares) for squares in (512**2, 2 * 256**2))
    assert two < one


def test_skew_moves_a_batch_its_measured_share_of_the_way(folder: Path):
    setup = prepare(folder)
    law = setup.law
    mean, longest = (law.step_s(16, 16 * c, 0, 0, c) for c in (800, 4096))
    assert law.step_s(16, 16 * 800, 0, 0, 4096) == pytest.approx(mean + 0.25 * (longest - mean))
    write_meta(folder / "profile" / "meta.yaml", skew="false")
    setup = prepare(folder)
    assert setup.law.step_s(16, 16 * 800, 0, 0, 4096) == pytest.approx(mean)
    assert any("skew" in line for line in setup.profile.notes)


def test_a_run_that_went_as_simulated_shows_no_difference(folder: Path):
    simulated = simulate_run(prepare(folder))
    rows = read_requests(folder)
    for row, ttft_s, e2e_s in zip(rows, simulated.ttft_s, simulated.e2e_s, strict=True):
        arrival = row["arrival_time"] - START + CLOCK + 0.001
        row |= {"first_token_ts": arrival + ttft_s, "last_token_ts": arrival + e2e_s}
        row["scheduled_ts"] = row["queued_ts"]
    write_requests(folder, rows)
    found = compare(prepare(folder))
    table = {(row["metric"], row["stat"]): row["diff_pct"] for row in found.rows}
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        for stat in ("mean", "p50", "p95", "p99"):
            assert table[metric, stat] == pytest.approx(0.0, abs=1e-3)
    assert table["makespan_s", "total"] == pytest.approx(0.0, abs=1e-3)
    assert max(found.request_mape_pct.values()) < 1e-2
    for row in rows:
        wait = row["last_token_ts"] - row["first_token_ts"]
        row["last_token_ts"] += wait
    write_requests(folder, rows)
    table = {(row["metric"], row["stat"]): row["diff_pct"] for row in compare(prepare(folder)).rows}
    assert table["tpot_s", "mean"] == pytest.approx(-50.0, abs=1e-3)


def test_the_small_run_preempts_and_its_inputs_matter(folder: Path):
    setup = prepare(folder)
    base = simulate_run(setup)
    assert base.preemptions > 0
    assert base.kept_tokens > 0
    moved = {change.name: change for change in sensitivity(setup, base)}
    assert len(moved) == 10
    assert moved["1 ms of CPU a step"].tpot_pct > 0.0
    assert moved["no KV found again after preemption"].e2e_pct > 0.0
    assert moved["KV blocks 158 instead of 120"].ttft_pct < 0.0
    assert type(setup.with_(law=StepLaw.from_json(setup.law.to_json())).law) is StepLaw


def test_a_pool_that_is_not_stated_is_estimated_and_must_not_bind(folder: Path):
    change_meta(folder, "kv_cache", "num_gpu_blocks", to=None)
    found = compare(prepare(folder))
    assert found.setup.pages_estimated
    assert any("does not bind" in line for line in found.notes)
    assert prepare(folder, pages=77).limits.n_pages == 77


def test_a_split_model_pays_for_its_links(folder: Path):
    split = folder / "profile" / "tp2"
    (folder / "profile" / "tp1").rename(split)
    alone = prepare_split(folder, split)
    assert alone.profile.law.tables.dense(512) > LAYERS * 6 * (100.0 + 0.6 * 512)
    assert any("all-reduce" in line for line in alone.profile.notes)


def prepare_split(folder: Path, split: Path):
    change_meta(folder, "engine_kwargs", "tensor_parallel_size", to=2)
    assert split.is_dir()
    return prepare(folder)


def spoil_request(index: int, **changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        rows = read_requests(folder)
        rows[index] |= changes
        write_requests(folder, rows)

    return spoil


def shift_engine_clock(folder: Path) -> None:
    rows = read_requests(folder)
    for row in rows[10:]:
        for name in ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts"):
            row[name] += 60.0
    write_requests(folder, rows)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a clock that jumps back": (
        spoil_request(3, first_token_ts=CLOCK - 1.0),
        "requests.jsonl:4: first_token_ts: must not lie before scheduled_ts",
    ),
    "clocks that move apart": (shift_engine_clock, "queued_ts: the two clocks moved apart"),
    "a missing time": (spoil_request(0, queued_ts=None), "queued_ts: must be a finite number"),
    "an empty answer": (spoil_request(0, output_toks=0), "output_toks: must be an integer >= 1"),
    "no resolved limits": (
        lambda f: change_meta(f, "engine_kwargs", "max_num_seqs", to=None),
        "engine_kwargs.max_num_seqs: must be an integer >= 1; got None",
    ),
    "no engine at all": (lambda f: change_meta(f, "engine_kwargs", to=...), "engine_kwargs: must"),
    "a request too few": (lambda f: change_meta(f, "num_requests", to=99), "num_requests"),
    "another device": (
        lambda f: write_meta(f / "profile" / "meta.yaml", gpu="NVIDIA L4"),
        "gpu: must be that of the run, 'NVIDIA GeForce RTX 4090'; got 'NVIDIA L4'",
    ),
    "another model": (
        lambda f: write_meta(f / "profile" / "meta.yaml", model="Llama-3.1-70B"),
        "model: must be that of the run",
    ),
    "a split without profile": (
        lambda f: change_meta(f, "engine_kwargs", "tensor_parallel_size", to=4),
        "tp4: is missing",
    ),
    "two replicas": (
        lambda f: change_meta(f, "engine_kwargs", "data_parallel_size", to=2),
        "data_parallel_size: must be 1; got 2",
    ),
    "a lost table": (lambda f: (f / "profile/tp1/attention.csv").unlink(), "attention.csv: cannot"),
    "a lost column": (
        lambda f: (f / "run/timeseries.csv").write_text("t,running\n1,2\n", "utf-8"),
        "column waiting: is missing",
    ),
    "samples out of order": (
        lambda f: (f / "run/timeseries.csv").write_text(
            "t,running,waiting,kv_cache_pct\n2,1,1,1\n1,1,1,1\n", "utf-8"
        ),
        "t: must rise",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_folders_are_named_in_one_line_with_exit_code_2(name: str, folder: Path):
    spoil, message = SPOILT[name]
    spoil(folder)
    result = CliRunner().invoke(app, ["--golden", str(folder)])
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_the_command_prints_rows_and_checks_a_bound(folder: Path):
    runner = CliRunner()
    result = runner.invoke(app, ["--golden", str(folder.parent), "--json", "--sensitivity"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["command"] == "validate"
    row = document["rows"][0]
    assert row.keys() == {"run", "metric", "stat", "measured", "simulated", "diff_pct"}
    assert row["run"] == "card/model"
    assert len(document["runs"][0]["sensitivity"]) == 10
    assert runner.invoke(app, ["--golden", str(folder), "--within", "0.001"]).exit_code == 1
    assert runner.invoke(app, ["--golden", str(folder), "--within", "1e9"]).exit_code == 0
    assert runner.invoke(app, []).exit_code == 2


def test_results_and_figures_are_written(folder: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["--golden", str(folder), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    document = json.loads((tmp_path / "golden.json").read_text(encoding="utf-8"))
    assert {"commit", "versions", "runs"} <= document.keys()
    assert len(document["runs"][0]["drawn"]["ttft_s"]["measured"]) == 24
    for name in ("golden.png", "golden_sensitivity.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table = html_table(golden_grid(document["runs"][0]), "caption")
    for row in document["runs"][0]["rows"][:12]:
        assert f"{row['diff_pct']:+.1f} %" in table
    assert document["commit"] in golden_footer(document)


def test_a_folder_without_runs_is_refused(tmp_path: Path):
    with pytest.raises(GoldenError, match="must hold run/ and profile/"):
        golden_folders(tmp_path)


def test_bad_skew_is_refused(folder: Path):
    write_skew(folder / "profile" / "tp1" / "skew.csv", share=0.1)
    path = folder / "profile" / "tp1" / "skew.csv"
    path.write_text(path.read_text("utf-8").replace("pure", "odd"), "utf-8")
    with pytest.raises(GoldenError, match="skew needs rows of each regime"):
        prepare(folder)
