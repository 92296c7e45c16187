"""``entropic claims``: the page, its exit codes, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.claims import macro, registry, system
from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raises(context: Context) -> Judgement:
    raise RuntimeError("no evidence")


def test_claims_of_the_system_are_judged_on_any_trace(cli, inputs, here, monkeypatch):
    monkeypatch.setattr(macro, "SIEGE_CASES", 1)
    monkeypatch.setattr(system, "CASES", 10)
    sections = ("Pruning", "Scheduling", "The coupled system", "Results")
    keys = [claim.key for name in sections for claim in registry.SECTIONS[name]]
    only = [word for key in keys for word in ("--only", key)]
    small = ("--seeds", 1, "--jobs", 1)
    done = cli("claims", *inputs, *only, *small, "--out", "sub/claims.md", "--json")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["key"] for row in rows] == keys
    page = (here / "sub" / "claims.md").read_text()
    for row in rows:
        assert f"| {row['key']} | {row['section']} |" in page
    assert f"| all | {len(rows)} |" in page
    assert "wrote sub/claims.md" in done.stderr
    assert [p.name for p in (here / "sub").iterdir()] == ["claims.md"]


def test_chosen_claims_are_printed_and_nothing_is_written(cli, here):
    done = cli("claims", "--only", "abstract", "--only", "table-1", "--only", "abstract")
    assert done.exit_code == 0, done.stderr
    assert "| all | 2 |" in done.stdout
    assert "abstract: refuted" in done.stderr
    assert list(here.iterdir()) == []


def test_a_judge_that_raises_ends_with_1_and_leaves_the_old_page(cli, here, monkeypatch):
    bad = Claim(key="bad", section="0", says="It.", judge=raises, command="entropic claims")
    monkeypatch.setattr(registry, "SECTIONS", {"Only": (bad,)})
    monkeypatch.setattr(registry, "all_claims", lambda: (bad,))
    (here / "claims.md").write_text("old")
    done = cli("claims", "--out", "claims.md")
    assert done.exit_code == 1
    assert "error: the judge of bad raised RuntimeError: no evidence" in done.stderr
    assert done.stdout == ""
    assert (here / "claims.md").read_text() == "old"
    assert [p.name for p in here.iterdir()] == ["claims.md"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--only", "prop-99"), ("unknown claim 'prop-99'", "prop-1")),
        (("--seeds", 0), ("seeds must be >= 1",)),
        (("--jobs", -1), ("jobs must be >= 0",)),
        (("--trace", "none.parquet"), ("none.parquet",)),
        (("--out", "file/claims.md"), ("--out", "file")),
    ],
)
def test_bad_input_is_one_line_and_2(cli, here, args, words):
    (here / "file").write_text("")
    done = cli("claims", *args)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
