"""Arguments of every wrong type are refused in one line; those of every right type are taken."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from backend.channel import Channel
from backend.chat import Conversation
from backend.errors import AlreadyRead, Closed, EngineFault
from backend.params import SamplingParams
from controllers.serving.request import SEEDS, Request
from tests.backend.served import SHORT, Gate, llm, settled
from tests.backend.test_chat import chat

WRONG_FIELDS: list[tuple[str, Any]] = [
    ("seed", -1),
    ("seed", SEEDS),
    ("seed", True),
    ("seed", 1.0),
    ("max_tokens", "6"),
    ("max_tokens", True),
    ("temperature", "hot"),
    ("temperature", None),
    ("temperature", True),
    ("temperature", 10**400),
    ("target_nats", [1.0]),
    ("min_coverage", float("nan")),
    ("enabled", "x"),
    ("enabled", 1),
    ("one_sided", None),
    ("ignore_stop", "no"),
    ("stop", None),
    ("stop", (1,)),
    ("stop", ("\udcff",)),
    ("stop_token_ids", 3),
    ("stop_token_ids", (1.5,)),
    ("stop_token_ids", (True,)),
]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_parameter_of_the_wrong_type_is_refused_by_name_in_one_line(name, value):
    with pytest.raises(ValueError, match=name.removesuffix("_ids")) as caught:
        SamplingParams(**{name: value})
    assert "\n" not in str(caught.value)
    assert "got" in str(caught.value)


def test_numbers_of_other_kinds_become_plain_ones():
    given: dict[str, Any] = {
        "seed": np.uint64(SEEDS - 1),
        "max_tokens": np.int32(5),
        "temperature": np.float32(0.5),
        "stop": ["a"],
    }
    made = SamplingParams(**given)
    assert made == SamplingParams(seed=SEEDS - 1, max_tokens=5, temperature=0.5, stop=("a",))
    assert (type(made.seed), type(made.temperature)) == (int, float)


@pytest.mark.parametrize("seed", [-1, SEEDS, 0.5, True])
def test_a_request_refuses_a_seed_that_keys_no_stream(seed):
    with pytest.raises(ValueError, match=r"^seed must be an integer in \[0, 2\^64\); got seed="):
        Request(request_id=0, prompt_tokens=1, max_tokens=1, seed=seed)


def test_a_seed_that_runs_over_among_the_prompts_is_refused_before_any_runs(tiny):
    last = SamplingParams(seed=SEEDS - 1, max_tokens=3, ignore_stop=True)
    with llm(tiny) as made:
        assert len(made.generate("a", last)[0].token_ids) == 3
        with pytest.raises(ValueError, match=f"got seed={SEEDS}"):
            made.generate(["a", "b"], last)
        assert made.metrics()["submitted"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": None}, "preset=None"),
        ({"stages": ("top",)}, "stages must be samplers; got 'top'"),
        ({"stages": 4}, "stages=4"),
        ({"history": "many"}, "history='many'"),
        ({"history": 0}, "history=0"),
        ({"t_cal": float("nan")}, "t_cal=nan"),
        ({"t_cal": float("inf")}, "t_cal=inf"),
        ({"t_cal": 0.0}, "t_cal=0.0"),
        ({"max_waiting": 1.5}, "max_waiting=1.5"),
        ({"stream_buffer": "x"}, "stream_buffer='x'"),
        ({"shadow": 1}, "shadow=1"),
    ],
)
def test_an_engine_argument_of_the_wrong_type_is_refused_by_name(tiny, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        llm(tiny, **options)
    assert "\n" not in str(caught.value)


def test_an_admission_that_raises_anything_fails_its_request_alone(tiny, monkeypatch):
    with llm(tiny) as made:
        lanes, add = made._engine.executor.surprisal, made._engine.executor.surprisal.add

        def broken(request: Request) -> None:
            if request.request_id == 1:
                raise TypeError("no such lane\nat all")
            add(request)

        monkeypatch.setattr(type(lanes), "add", lambda _, request: broken(request))
        streams = [made.stream("hello", SHORT) for _ in range(3)]
        assert [len(list(streams[i])) for i in (0, 2)] == [6, 6]
        with pytest.raises(EngineFault, match=r"was not taken: TypeError: no such lane$") as caught:
            list(streams[1])
        assert caught.value.request_ids == (1,)
        assert not caught.value.fatal
        assert settled(made)
        assert not made._engine.executor.lanes._slots
        made._engine.loop.check()
        assert len(made.generate("later", SHORT)[0].token_ids) == 6


def test_each_kind_of_token_sequence_is_the_same_prompt(tiny):
    ids = [5, 6, 7]
    kinds = [ids, tuple(ids), np.array(ids), torch.tensor(ids), range(5, 8), deque(ids), iter(ids)]
    with llm(tiny) as made:
        found = [made.generate([each], SHORT)[0].token_ids for each in kinds]
        assert len(set(found)) == 1
        scalars = [np.int64(each) for each in ids]
        alone: list[Any] = [np.array(ids), torch.tensor(ids), iter(ids), scalars]
        for one in alone:
            assert [each.token_ids for each in made.generate(one, SHORT)] == found[:1]
        two = made.generate((each for each in (ids, "ab")), SHORT)
        assert len(two) == len(made.generate(np.array([ids, ids]), SHORT)) == 2


STRANGE = [5, None, b"abc", {1: 2}, [1.0], [True], np.array([0.5]), [[1, "a"]], [b"ab"], [None]]


@pytest.mark.parametrize("prompt", [*STRANGE, "\udcff", ["fine", "\udcff"]], ids=ascii)
def test_what_is_no_prompt_is_refused_in_one_line(tiny, prompt):
    with llm(tiny) as made:
        with pytest.raises(ValueError, match="prompt") as caught:
            made.generate(prompt, SHORT)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="prompt"):
            made.stream(prompt, SHORT)
        assert not made._worker._tickets


@pytest.mark.parametrize("params", [0, "hot", {"seed": 1}, [SHORT.seed]])
def test_parameters_that_are_none_are_refused_in_one_line(tiny, params):
    with llm(tiny) as made, pytest.raises(ValueError, match="params must be SamplingParams"):
        made.generate(["a"], params)


MESSAGES = {
    "content of message 1": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None},
    ],
    "content of message 0": [{"role": "user", "content": "\udcff"}],
    "role of message 0": [{"role": 3, "content": "a"}],
    "message 0 must be a mapping": ["hello"],
    "messages must be a sequence": "hello",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_no_text_is_named(tiny, message):
    with llm(tiny) as made, pytest.raises(ValueError, match=message):
        made.chat(MESSAGES[message])  # type: ignore[arg-type]


def test_a_turn_that_is_no_text_leaves_the_conversation_as_it_was(tiny):
    with llm(tiny) as made:
        conversation = Conversation(made, SHORT)
        with pytest.raises(ValueError, match="UTF-8"):
            conversation.ask("\udcff")
        assert not conversation.messages


def test_chat_says_what_is_not_utf8_and_goes_on(monkeypatch, tiny):
    done = chat(monkeypatch, tiny, b"\xff\xfe bad\nhello\n")  # type: ignore[arg-type]
    assert done.exit_code == 0, done.stderr
    _, refused, answered = done.stderr.splitlines()
    assert refused.startswith("error: content of message 0 must be valid UTF-8")
    assert "of 5 prompt tokens" in answered


def test_a_refusal_told_again_and_again_does_not_grow(tiny):
    made = llm(tiny)
    made.close()
    lengths = []
    for _ in range(3):
        with pytest.raises(Closed) as caught:
            made.generate("a", SHORT)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1


def test_an_error_that_ended_a_channel_is_raised_afresh_with_its_cause():
    fault = EngineFault("it died", request_ids=(3,), fatal=True)
    fault.__cause__ = cause = RuntimeError("why")
    channel = Channel(1)
    channel.close(fault)
    raised = []
    for _ in range(3):
        with pytest.raises(EngineFault, match="it died") as caught:
            channel.get()
        raised.append(caught.value)
        assert (caught.value.request_ids, caught.value.fatal) == ((3,), True)
        assert caught.value.__cause__ is cause
    assert len({id(each) for each in raised}) == 3
    assert fault.__traceback__ is None


def test_a_second_async_reader_is_told_and_the_first_reads_on(tiny):
    gate = Gate(tiny)

    async def both() -> int:
        stream = made.stream("hello", SHORT)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(AlreadyRead, match="has a reader"):
            await anext(stream)
        gate.let(100)
        await first
        return 1 + len([delta async for delta in stream])

    with llm(gate.loaded) as made:
        assert asyncio.run(both()) == SHORT.max_tokens
    gc.collect()
