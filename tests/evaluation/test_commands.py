"""The commands on a tiny model: rows, resuming, refusals, figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import backend.models
from reports.evaluation.eval_commands import app
from reports.evaluation.tasks import TASKS
from tests.backend.tiny import tiny_model

SMALL = ["--tasks", "needle,kv", "--context", "380", "--n", "2", "--seeds", "2"]
SMALL += ["--forced-tokens", "6", "--max-tokens", "8"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    loaded, before = tiny_model(), torch.get_num_threads()
    monkeypatch.setattr(backend.models, "load", lambda model: loaded)
    monkeypatch.delenv("ENTROPIC_DATA", raising=False)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def evaluated(out: Path, *more: str) -> str:
    code, shown, said = run("eval", "--out", out, *SMALL, *more)
    assert code == 0, said
    return shown


def test_a_killed_run_goes_on_and_says_the_same_bytes(tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    first = evaluated(whole, "--json")
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert evaluated(cut, "--json") == first
    assert cut.read_bytes() == whole.read_bytes()  # work is done in the same order
    assert evaluated(whole, "--json") == first  # nothing left to do
    found = json.loads(first)
    assert found["command"] == "eval"
    rows = [json.loads(line) for line in whole.read_text().splitlines()[1:]]
    # 4 prompts with a reply and a continuation; 2 arms, 2 seeds.
    assert sum(row["kind"] == "forced" for row in rows) == 4 * 2
    assert sum(row["kind"] == "free" for row in rows) == 4 * 2 * 2
    assert {entry["arm"] for entry in found["metrics"]["free"]} == {"baseline", "attention"}


def test_short_prompts_stay_dense_under_a_preset(tmp_path):
    shown = evaluated(tmp_path / "rows.jsonl")
    assert "0.0000 ±0.0000" in shown  # KL: contexts under 512 tokens are not pruned
    assert "not judged" in shown


def test_the_tables_say_what_they_rest_on(tmp_path):
    code, shown, said = run(
        "eval", "--out", tmp_path / "r.jsonl", *SMALL, "--n", "1", "--tasks", "kv", "--no-free"
    )
    assert code == 0
    assert "n is too small for intervals" in said
    assert "examples are made up" in said
    assert "Along the correct reply: 1 documents" in shown


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_quality_command_writes_a_document_and_a_figure(tmp_path, monkeypatch):
    from reports.evaluation import settings

    few = (settings.fixed(0.9, scorer="oracle"), settings.fixed(0.9), settings.fixed(0.98))
    monkeypatch.setattr(settings, "sweep", lambda: few)
    out, figure = tmp_path / "q.json", tmp_path / "q.png"
    options = ["--rows", tmp_path / "q.jsonl", "--context", "400", "--n", "2", "--tokens", "8"]
    options += ["--tasks", "kv,book"]
    code, shown, said = run("quality", "--out", out, "--figure", figure, *options)
    assert code == 0, said
    document = json.loads(out.read_text())
    entries = {(e["text"], e["setting"]): e for e in document["entries"]}
    assert {name for _, name in entries} == {setting.name for setting in few}
    oracle = entries["sampled", few[0].name]
    assert oracle["kv_bytes_share"] == oracle["kv_pages_kept_share"]  # no statistics to read
    assert oracle["bar"] == "bound"
    assert entries["sampled", few[1].name]["bar"] == "too little"
    assert entries["sampled", few[1].name]["kl_nats"]["mean"] > 0.0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "needs 1,000 tokens at 3,000 of context" in shown
    longest = max(json.loads(line).get("prompt_tokens", 0) for line in rows(tmp_path / "q.jsonl"))
    again = ["--out", out, "--figure", figure, *options]
    code, _, said = run("quality", *again, "--shortest", longest)  # from the rows, no new scores
    assert code == 0, said
    assert "documents left out: prompts under" in said
    left = json.loads(out.read_text())["entries"]
    assert {entry["shortest_prompt_tokens"] for entry in left} == {longest}
    code, _, said = run("quality", *again, "--shortest", longest + 1)
    assert code == 2
    assert f"shortest leaves no document; got shortest={longest + 1}" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tasks", "chess"], "tasks must be among needle, multi_needle, kv"),
        (["--context", "4096"], "context must be <= 506: tiny has 512 tokens"),
        (["--context", "63"], "context must be >= 64"),
        (["--context", "64", "--tasks", "kv"], "context must be >= "),
        (["--context", "500", "--max-tokens", "40"], "context must leave room for a reply"),
        (["--preset", "magic"], "unknown preset 'magic'"),
        (["--tasks", "ifeval", "--n", "99"], "n must be <= 4"),
        (["--tasks", "qmsum"], "qmsum needs the public prompt files"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, arguments, says):
    out = tmp_path / "rows.jsonl"
    code, shown, said = run("eval", "--out", out, *SMALL, *arguments)
    assert code == 2
    assert shown == ""
    error = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert says in error[0]
    assert not out.exists()


def test_rows_of_another_configuration_are_refused(tmp_path):
    out = tmp_path / "rows.jsonl"
    few = ["--tasks", "needle", "--n", "1", "--no-free"]
    evaluated(out, *few)
    before = out.read_bytes()
    code, _, said = run("eval", "--out", out, *SMALL, *few, "--seed", "1")
    assert code == 2
    assert "another configuration: seed is 0, not 1" in said
    assert out.read_bytes() == before


@pytest.mark.parametrize("command", ["eval", "quality"])
def test_the_help_names_every_task(command):
    _, shown, _ = run(command, "--help")
    assert all(name in shown for name in TASKS)
