"""Seeds, texts and interrupts of the live commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from backend.commands import interruptible
from traces.console import quiet_libraries

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us may ignore it
import entropic
sys.argv[0] = "entropic"
entropic.main()
"""
PROGRESS = re.compile(r"[a-z ]+: \d+")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("generate", "a", "b", "--seed", str(2**64 - 1)), "seed"),
        (("generate", "a", "--seed", str(2**64)), "seed"),
        (("chat", "--seed", str(2**64)), "seed"),
        (("generate", "a", "b\udcff"), "prompt 1"),
        (("chat", "--system", "\udcff"), "system"),
    ],
    ids=ascii,
)
def test_a_seed_or_a_text_out_of_bounds_is_one_line(cli, monkeypatch, options, word):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("backend.models.load", load)
    done = cli(*options)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {word}")


def test_the_first_interrupt_ends_a_command_and_the_second_is_ignored(capsys):
    before = signal.getsignal(signal.SIGINT)
    stopped = []
    try:
        with pytest.raises(typer.Exit) as caught, interruptible(once=True):
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                stopped.append(True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.exit_code == 130
    assert stopped == [True]
    assert capsys.readouterr().err == "interrupted\n"


def test_an_uninterrupted_command_leaves_the_handler_as_it_was():
    before = signal.getsignal(signal.SIGINT)
    with interruptible(once=True):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_what_joblib_says_of_cancelled_tasks_stays_off_the_terminal():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("1 tasks which were still being processed by the workers", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in heard] == ["something else"]


def interruptible_child(*words: object, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Start ``entropic`` as a shell does: in a process group of its own, interrupts on."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(ready: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if ready():
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)
    raise AssertionError("it did not come to it in a minute")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_plan_says_so_in_a_line_and_goes_on_to_the_same_bytes(
    cli, inputs, arrivals, tmp_path, jobs
):
    asked = ["plan", *inputs, "--arrivals", arrivals, "--seeds", 2, "--slo", "ttft_p99<3s"]
    asked += ["--presets", "baseline,full,sampling"]
    stopped, whole = tmp_path / "stopped.json", tmp_path / "whole.json"
    assert cli(*asked, "--jobs", 1, "--out", whole).exit_code == 0

    child = interruptible_child(*asked, "--jobs", jobs, "--out", stopped)
    wait_for(lambda: (tmp_path / "stopped.json.runs.jsonl").exists(), child)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: the whole group at once
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    lines = [line for line in said.splitlines() if not line.startswith("simulations:")]
    assert len(lines) == 1, said
    assert re.fullmatch(r"interrupted: [1-9]\d* simulations are kept in .* goes on", lines[0])
    assert not stopped.exists()

    assert cli(*asked, "--jobs", 1, "--out", stopped).exit_code == 0
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "--requests", 200_000, "--ledger-out", "out.jsonl"),
        ("ablate", "--seeds", 900, "--jobs", 2),
        ("failures", "--seeds", 900),
    ],
    ids=lambda words: words[0],
)
def test_an_interrupted_study_is_one_line_and_leaves_no_file(inputs, tmp_path, words):
    child = interruptible_child(*words, *inputs, folder=tmp_path)
    time.sleep(2.5)  # anywhere: among imports, when workers start, or in the work itself
    os.killpg(child.pid, signal.SIGINT)
    out, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    lines = [line for line in said.splitlines() if not PROGRESS.match(line)]
    assert lines == ["interrupted"], said
    assert out == ""
    assert list(tmp_path.iterdir()) == []
