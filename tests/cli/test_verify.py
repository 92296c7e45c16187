"""``entropic verify``: exit codes, files, replay. What the properties find is tests/verify's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BROKEN = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Mine:
    gain: float = 1.0

    def init(self, signal):
        return ()

    def update(self, state, signal):
        return state, signal.wait_s * self.gain{fault}
"""
FAULT = " + {}['kappa']"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = ("--profile", "ci", "--lanes", "60")


@pytest.fixture
def law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(BROKEN.replace("{fault}", FAULT))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def counterexample(cli, law: Path) -> Path:
    assert cli("verify", "mine.py:Mine", *QUICK, "--out", "found").exit_code == 1
    (path,) = (law.parent / "found").iterdir()
    return path


def refused(done, *words: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_a_law_that_raises_is_a_violated_row_with_a_replay_line(cli, law):
    done = cli("verify", "mine.py:Mine", *QUICK, "--out", "found")
    assert done.exit_code == 1
    assert "VIOLATED contract.callable (priority: Mine)" in done.stdout
    assert "KeyError: 'kappa'" in done.stdout
    assert "replay: entropic verify --replay found/Mine.priority.contract.callable.json" in (
        done.stdout
    )
    assert "1 violated" in done.stdout.splitlines()[-1]
    assert "verify Mine" in done.stderr
    assert sorted(p.name for p in law.parent.iterdir() if p.suffix != "") == ["mine.py"]


def test_the_report_is_one_json_object(cli, law):
    done = cli("verify", "mine.py:Mine", *QUICK, "--seed", "3", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert (document["command"], document["seed"]) == ("verify", 3)
    assert document["config"]["budget"]["lanes"] == 60
    first = document["rows"][0]
    assert (first["property"], first["verdict"]) == ("contract.callable", "violated")
    assert first["counterexample"] == json.loads(Path(first["file"]).read_text())
    assert {row["verdict"] for row in document["rows"][1:]} == {"not applicable"}


def test_a_counterexample_reproduces_until_the_law_is_mended(cli, law, counterexample):
    done = cli("verify", "--replay", counterexample)
    assert done.exit_code == 1
    assert "reproduced: 1 > 0" in done.stdout.splitlines()[-1]
    law.write_text(BROKEN.replace("{fault}", ""))
    done = cli("verify", "--replay", counterexample, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["rows"][0]["reproduced"] is False


def test_replay_refuses_a_law_with_other_gains(cli, law, counterexample):
    law.write_text(BROKEN.replace("{fault}", FAULT).replace("1.0", "2.0"))
    refused(cli("verify", "--replay", counterexample), "mine.py:Mine", "priority law", "now")


DAMAGE = {
    "not json": (lambda d: "{", "cannot be read"),
    "no object": (lambda d: "[1]", "schema"),
    "another schema": (lambda d: json.dumps(d | {"schema": "x"}), "schema"),
    "a later version": (lambda d: json.dumps(d | {"version": 99}), "version 99"),
    "no case": (lambda d: json.dumps(d | {"case": None}), "case is missing"),
    "an unknown property": (lambda d: json.dumps(d | {"property": "micro.no"}), "'micro.no'"),
    "an unknown target": (lambda d: json.dumps(d | {"target": "mine.py:No"}), "mine.py:No"),
    "an unknown role": (lambda d: json.dumps(d | {"role": "macro"}), "'macro'"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_counterexample_is_refused_in_one_line(cli, counterexample, how):
    damage, word = DAMAGE[how]
    counterexample.write_text(damage(json.loads(counterexample.read_text())))
    refused(cli("verify", "--replay", counterexample), word)


BAD = {
    ("verify", "fastest"): ("fastest", "full", "EntropyFeedback"),
    ("verify", "mine.py:No"): ("mine.py:No", "no attribute"),
    ("verify", "absent.py:Law"): ("absent.py",),
    ("verify", "mine.py:Mine", "--role", "macro"): ("role", "'macro'"),
    ("verify", "mine.py:Mine", "--profile", "slow"): ("profile", "'slow'"),
    ("verify", "mine.py:Mine", "--lanes", "0"): ("lanes", "0"),
    ("verify", "mine.py:Mine", "--seed", "-1"): ("seed", "-1"),
    ("verify", "mine.py:Mine", "--lanes", "999999999999"): ("lanes", "at most 100,000,000"),
    ("verify", "mine.py:Mine", "--out", "mine.py"): ("must be a folder", "mine.py"),
    ("verify", "mine.py"): ("say which law", "mine.py:MyLaw"),
    ("verify", "full", "--role", "coverage"): ("'coverage' is for a lone law", "full"),
    ("verify", "--replay", "absent.json"): ("absent.json", "cannot be read"),
}


@pytest.mark.parametrize("command", BAD, ids=" ".join)
def test_bad_input_is_one_line_naming_what_is_wrong(cli, law, command):
    refused(cli(*command), *BAD[command])


def test_the_documented_third_party_law_verifies_clean(cli, tmp_path):
    target = f"{EXAMPLES / 'third_party_law.py'}:DeadBand"
    done = cli("verify", target, *QUICK, "--out", tmp_path, "--certificates", tmp_path / "proofs")
    assert done.exit_code == 0, done.stdout
    assert "temperature: DeadBand" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_papers_law_fails_stability_and_its_counterexample_replays(cli, tmp_path):
    done = cli("verify", "SeedLiteral", *QUICK, "--out", tmp_path)
    assert done.exit_code == 1
    path = tmp_path / "SeedLiteral.micro.stability.json"
    again = cli("verify", "--replay", path)
    assert again.exit_code == 1
    assert "reproduced" in again.stdout
    assert len(again.stdout.splitlines()) <= 40
