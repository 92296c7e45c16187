"""What an output says made it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess

import pytest

from traces.console import commit
from traces.provenance import argument_line, provenance, told


def test_a_header_names_what_made_an_output():
    config = {"trace_sha256": "ab", "planned_model": "m", "profile_device": "d"}
    made = provenance("entropic-x", seed=3, config=config)
    assert list(made) == [
        "schema", "entropic", "commit", "versions", "seed", "trace_sha256", "profile", "arguments",
    ]  # fmt: skip
    assert (made["schema"], made["seed"], made["trace_sha256"]) == ("entropic-x", 3, "ab")
    assert made["profile"] == "m on d"
    assert made["versions"]["numpy"] == importlib.metadata.version("numpy")
    assert provenance("entropic-x", seed=None)["profile"] is None
    assert told(made)["command"] == made["arguments"]
    assert told({}) == {}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("simulate", "--seed", "3", "--json"), "simulate --seed 3"),
        (("simulate", "--ledger-out", "/a/l.jsonl", "--rate", "2"), "simulate --rate 2"),
        (("plan", "--out=/a/p.json", "--jobs", "2", "--fresh"), "plan"),
        (("plan", "--slo", "ttft_p99<1.5s"), "plan --slo 'ttft_p99<1.5s'"),
        (("plan", "--arrivals", "/srv/me/a=b.csv"), "plan --arrivals a=b.csv"),
        (("plan", "--arrivals=/srv/me/a.csv"), "plan --arrivals=a.csv"),
        (("plan", "--arrivals", "../me/a.csv"), "plan --arrivals a.csv"),
        (("plan", "--arrivals", "data/a.csv"), "plan --arrivals data/a.csv"),
        (("trace", "mix", "t=/srv/a.csv@3"), "trace mix t=a.csv@3"),
    ],
)
def test_an_argument_line_holds_what_decides_numbers_and_no_folder(words, line):
    assert argument_line(["/usr/bin/entropic", *words]) == f"entropic {line}"


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")
def test_a_checkout_around_an_installed_package_is_not_taken_for_ours(tmp_path):
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, check=True)

    inside = tmp_path / "lib"
    inside.mkdir()
    (inside / "a.py").touch()
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    assert commit(inside) == "unknown"
    git("add", ".")
    git("commit", "-m", "ours")
    assert len(commit(inside)) >= 7
    assert not commit(inside).endswith("-dirty")
    (inside / "a.py").write_text("x = 1")
    assert commit(inside).endswith("-dirty")
