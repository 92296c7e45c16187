"""Seeds, texts and interrupts of the live commands."""

from __future__ import annotations

import os
import signal
import warnings

import pytest
import typer

from backend.commands import interruptible
from traces.console import quiet_libraries


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
