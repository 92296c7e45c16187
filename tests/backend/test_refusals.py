"""What the library refuses, and what a failure leaves of the others: everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import backend.setup
from backend.errors import (
    EngineFault,
    OutOfMemory,
    Overloaded,
    RequestTooLong,
)
from backend.llm import LLM
from backend.models import LoadedModel
from backend.params import SamplingParams
from tests.backend.served import (
    LONG,
    SHORT,
    Gate,
    llm,
    reason_of,
    settled,
)
from tests.backend.tiny import (
    CONTEXT,
    tampered,
)


def exploding(loaded: LoadedModel, victim: int, after: int) -> LoadedModel:
    """Return a model whose pass raises once the victim's row lies beyond ``after`` tokens."""

    def change(step: Any, logits: Tensor) -> Tensor:
        if any(row.request_id == victim and row.start >= after for row in step.rows):
            raise RuntimeError("a kernel fell over\nin two lines")
        return logits

    return tampered(loaded, change)


def test_a_step_that_raises_fails_its_requests_and_the_engine_serves_on(tiny):
    with llm(tiny, max_seqs=2) as made:
        expected = made.generate("later", SHORT)
    with llm(exploding(tiny, victim=0, after=8), max_seqs=2) as made:
        streams = [made.stream(prompt, SHORT) for prompt in ("hello", "you", "later")]
        for stream in streams[:2]:
            with pytest.raises(EngineFault, match="raised RuntimeError: a kernel") as caught:
                list(stream)
            assert "\n" not in str(caught.value)
            assert caught.value.request_ids == (0, 1)
            assert reason_of(made, stream.request_id) == "engine_fault"
        assert [delta.token_id for delta in streams[2]] == [*expected[0].token_ids]
        assert settled(made)
        assert not made._engine.executor.live
        made._engine.loop.check()


def test_a_control_plane_that_dies_tells_every_consumer(tiny, monkeypatch):
    with llm(tiny) as made:
        first, second = made.stream("hello", LONG), made.stream("you", LONG)
        next(first)

        def broken(now_ns: int) -> None:
            raise AssertionError("a queue got lost")

        monkeypatch.setattr(made._engine.loop, "plan", broken)
        for stream in (first, second):
            with pytest.raises(EngineFault, match="a queue got lost") as caught:
                list(stream)
            assert caught.value.fatal
        with pytest.raises(EngineFault, match="the engine died"):
            made.generate("more", SHORT)


def test_a_request_with_bad_logits_fails_alone_and_its_stream_ends(tiny):
    def spoil(step: Any, logits: Tensor) -> Tensor:
        for lane, row in enumerate(step.rows):
            if row.request_id == 0 and row.start > 8:
                logits[0, lane, 3] = float("nan")
        return logits

    with llm(tampered(tiny, spoil)) as made:
        bad, good = made.generate(["hello", "hello"], SHORT)
    assert bad.finish_reason == "nonfinite_logits"
    assert 0 < len(bad.token_ids) < SHORT.max_tokens
    assert (good.finish_reason, len(good.token_ids)) == ("length", SHORT.max_tokens)


def test_a_full_queue_refuses_all_of_a_batch_and_keeps_what_it_has(tiny):
    gate = Gate(tiny)
    with llm(gate.loaded, max_seqs=1, max_waiting=1) as made:
        running, waiting = made.stream("a", SHORT), made.stream("b", SHORT)
        for batch in (["c"], ["c", "d"]):
            with pytest.raises(Overloaded, match="at most 2 requests"):
                made.generate(batch, SHORT)
        gate.let(100)
        assert [len(list(stream)) for stream in (running, waiting)] == [6, 6]
        assert len(made.generate(["c", "d"], SHORT)) == 2


REFUSED: dict[str, tuple[Callable[[LLM], object], type[Exception], str]] = {
    "too long for the context": (
        lambda made: made.generate([[1] * CONTEXT], SHORT),
        RequestTooLong,
        f"max_context = {CONTEXT}; got prompt_tokens={CONTEXT}",
    ),
    "one of a batch too long": (
        lambda made: made.generate(["a", "b" * CONTEXT], SHORT),
        RequestTooLong,
        f"max_context = {CONTEXT}",
    ),
    "empty prompt": (lambda made: made.stream(""), ValueError, "prompt_tokens=0"),
    "strange token": (lambda made: made.stream([999]), ValueError, r"\[0, 257\); got 999"),
    "strange stop token": (
        lambda made: made.stream("a", SamplingParams(stop_token_ids=(257,))),
        ValueError,
        "stop_token_id=257",
    ),
    "two parameters for three": (
        lambda made: made.generate([*"abc"], [SHORT, SHORT]),
        ValueError,
        "params=2",
    ),
    "no messages": (lambda made: made.chat([]), ValueError, "messages must hold"),
    "a message without a role": (
        lambda made: made.chat([{"content": "x"}]),
        ValueError,
        r"got \['content'\]",
    ),
    "unreachable set-point": (
        lambda made: made.stream("a", SamplingParams(target_nats=6.0)),
        ValueError,
        "target_nats=6.0",
    ),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_wrong_request_is_refused_at_once_and_nothing_is_kept(tiny, how):
    ask, kind, message = REFUSED[how]
    with llm(tiny) as made:
        with pytest.raises(kind, match=message) as caught:
            ask(made)
        assert "\n" not in str(caught.value)
        assert not made._engine.loop.has_work
        assert not made._worker._tickets


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop": ("",)}, "stop=''"),
        ({"stop": "word"}, "stop='word'"),
        ({"stop_token_ids": (-1,)}, "stop_token_id=-1"),
    ],
)
def test_wrong_parameters_are_refused_by_field_and_value(fields, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_tokens": 100}, "multiple of page_tokens = 16; got pool_tokens=100"),
        ({"page_tokens": 0}, "page_tokens=0"),
        ({"max_seqs": 0}, "max_seqs=0"),
        ({"token_budget": 1}, "token_budget=1"),
        ({"max_waiting": -1}, "max_waiting=-1"),
        ({"stream_buffer": 0}, "stream_buffer=0"),
        ({"preset": "fastest"}, "unknown preset 'fastest'"),
    ],
)
def test_a_wrong_engine_is_refused_by_field_and_value(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        llm(tiny, **options)


def test_a_pool_larger_than_the_free_memory_is_refused_before_it_is_taken(tiny, monkeypatch):
    monkeypatch.setattr(backend.setup, "free_bytes", lambda: 100_000)
    with pytest.raises(OutOfMemory, match="n_pages=128, which take") as caught:
        llm(tiny)
    assert "\n" not in str(caught.value)


def test_the_system_says_how_much_memory_is_free():
    free = backend.setup.free_bytes()
    assert free is None or 0 < free < 1 << 50
