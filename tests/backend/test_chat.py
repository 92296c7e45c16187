"""A conversation: turns kept in order, the oldest dropped, and the command that holds it."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner, Result

import backend.llm
from backend.chat import Conversation
from backend.chat_commands import app
from backend.errors import RequestTooLong
from backend.models import LoadedModel
from tests.backend.served import SHORT, llm
from tests.backend.tiny import CONTEXT, STEP_LAW, tampered

WORDS = ["H ", "T ", "coverage ", "prompt tokens cached"]


def talk(conversation: Conversation, text: str) -> int:
    """Take one turn; return how many old messages were dropped for it."""
    stream, dropped = conversation.ask(text)
    conversation.answered("".join(delta.text for delta in stream))
    return dropped


def test_a_conversation_keeps_its_turns_in_order_after_the_system_message(tiny):
    with llm(tiny) as made:
        conversation = Conversation(made, SHORT, system="be kind")
        assert [talk(conversation, text) for text in ("one", "two")] == [0, 0]
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert [message["content"] for message in conversation.messages[1::2]] == ["one", "two"]
    conversation.reset()
    assert [message["content"] for message in conversation.messages] == ["be kind"]


def test_the_oldest_turns_go_when_the_conversation_no_longer_fits(tiny):
    with llm(tiny) as made:
        conversation = Conversation(made, SHORT, system="be kind")
        dropped = [talk(conversation, letter * 150) for letter in "abcd"]
        assert dropped == [0, 0, 0, 2]
        assert conversation.messages[0]["content"] == "be kind"
        assert conversation.messages[1]["content"] == "b" * 150
        before = conversation.messages
        with pytest.raises(RequestTooLong):
            conversation.ask("e" * CONTEXT)
        assert conversation.messages == before


def test_each_turn_has_a_seed_of_its_own(tiny):
    with llm(tiny, "baseline") as made:
        conversation = Conversation(made, SHORT)
        replies = []
        for _ in range(2):
            talk(conversation, "again")
            replies.append(conversation.messages[-1]["content"])
            conversation.reset()
    assert replies[0] != replies[1]


def chat(monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel, typed: str, *more: str) -> Result:
    monkeypatch.setattr(backend.llm, "load", lambda _, **__: loaded)
    monkeypatch.setattr(backend.llm, "default_step_law", lambda: STEP_LAW)
    return CliRunner().invoke(app, ["--max-tokens", "6", *more], input=typed)


def test_chat_answers_each_line_of_a_pipe_and_says_how_it_went(monkeypatch, tiny):
    done = chat(monkeypatch, tiny, "hello\n\nyou there\n")
    assert done.exit_code == 0, done.stderr
    _, *lines = done.stderr.splitlines()
    assert len(lines) == 2  # the empty line is no turn
    for line in lines:
        assert all(word in line for word in WORDS)
    assert done.stdout
    assert chat(monkeypatch, tiny, "hello\n\nyou there").stdout == done.stdout


def test_chat_obeys_its_commands_and_ends_at_exit(monkeypatch, tiny):
    done = chat(monkeypatch, tiny, "hello\n/reset\nhello\n/what is this\n/exit\nnever read\n")
    assert done.exit_code == 0
    _, first, second, unknown = done.stderr.splitlines()
    assert "of 5 prompt tokens" in first
    assert "of 5 prompt tokens" in second  # the first turn is forgotten
    assert unknown.startswith("unknown command /what: /exit ends")


def test_chat_says_what_does_not_fit_and_goes_on(monkeypatch, tiny):
    done = chat(monkeypatch, tiny, f"{'x' * CONTEXT}\n{'y' * 400}\n{'z' * 400}\n")
    assert done.exit_code == 0
    _, too_long, _, dropped, last = done.stderr.splitlines()
    assert too_long.startswith("error: ")
    assert f"max_context = {CONTEXT}" in too_long
    assert dropped == "[the oldest 2 messages no longer fit and are forgotten]"
    assert "of 400 prompt tokens" in last


def test_chat_keeps_what_came_of_a_reply_that_was_interrupted(monkeypatch, tiny):
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        if len(shown) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("backend.chat_commands.show", show)
    done = chat(monkeypatch, tiny, "hello\nand now\n", "--max-tokens", "40")
    assert done.exit_code == 0
    _, stopped, after = done.stderr.splitlines()
    assert stopped == "[stopped]"
    kept = len("hello") + len("".join(shown[:3]).encode()) + len("and now") + 2
    assert f"of {kept} prompt tokens" in after


def test_chat_ends_with_one_line_when_the_engine_fails(monkeypatch, tiny):
    def fail(step: Any, logits: Any) -> Any:
        raise RuntimeError("a kernel fell over")

    done = chat(monkeypatch, tampered(tiny, fail), "hello\nnever read\n")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[1:] == [
        "error: step 0 of 1 requests raised RuntimeError: a kernel fell over"
    ]
