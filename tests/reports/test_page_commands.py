"""``entropic page``: pages and stories from the command line; bad input is one line and exit 2."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from reports.page_commands import app
from tests.reports.plans import plan_of


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_a_page_of_two_presets_and_its_story(tmp_path):
    out = tmp_path / "page.html"
    code, stdout, stderr = call(
        "simulate", "--presets", "baseline,seed", "--requests", 6, "--rate", 1, "--out", out
    )
    assert code == 0, stderr
    assert stdout == ""
    assert f"wrote {out}" in stderr
    html = out.read_text()
    assert "Simulation of baseline, seed" in html
    assert 'id="worst"' in html
    assert "baseline.mode" in html


def test_a_page_of_a_plan(tmp_path):
    source, out = tmp_path / "plan.json", tmp_path / "plan.html"
    source.write_text(json.dumps(plan_of()))
    assert call("plan", source, "--out", out)[0] == 0
    assert "Capacity plan" in out.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("simulate", "--presets", "baseline,nosuch"), "unknown preset 'nosuch'"),
        (("simulate", "--presets", "full,full"), "presets must be distinct names"),
        (("simulate", "--presets", ","), "presets must be distinct names"),
        (("simulate", "--out", "page.txt"), "a page must end in"),
        (("plan", "absent.json"), "absent.json"),
        (("explain", "absent.jsonl", 3), "absent.jsonl"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = call(*words)
    assert code == 2
    assert complaint in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_plan_and_no_log_is_refused(tmp_path):
    other = tmp_path / "other.json"
    for text in ('{"command": "simulate"}', "[]", "{"):
        other.write_text(text)
        code, _, stderr = call("plan", other, "--out", tmp_path / "x.html")
        assert code == 2
        assert "other.json must be" in stderr
    log = other.rename(tmp_path / "log.jsonl")
    code, _, stderr = call("explain", log, 1)
    assert code == 2
    assert "log.jsonl, line 1: must be JSON" in stderr
