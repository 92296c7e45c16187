"""Streams over one engine: read together, left early, forgotten, cut off."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
from torch import Tensor

from backend.channel import Channel
from backend.errors import (
    Abandoned,
    Closed,
)
from backend.llm import LLM
from backend.params import Delta, Output, SamplingParams
from backend.stream import Stream
from tests.backend.served import (
    LONG,
    SHORT,
    llm,
    read,
    reason_of,
    settled,
    text_of,
)
from tests.backend.tiny import (
    prompt_of,
    tampered,
)


def test_concurrent_streams_give_what_each_gives_alone(tiny):
    prompts = [prompt_of(20 + i, i) for i in range(6)]
    params = [SamplingParams(max_tokens=12, seed=i) for i in range(6)]
    with llm(tiny, max_seqs=3) as made:

        async def main() -> list[tuple[list[Delta], Output | None]]:
            streams = [made.stream(*each) for each in zip(prompts, params, strict=True)]
            deltas = await asyncio.gather(*map(read, streams))
            return [(d, s.output) for d, s in zip(deltas, streams, strict=True)]

        found = asyncio.run(main())
        alone = [made.generate(*each)[0] for each in zip(prompts, params, strict=True)]
    for (deltas, output), expected in zip(found, alone, strict=True):
        assert output is not None
        assert tuple(delta.token_id for delta in deltas) == expected.token_ids
        assert "".join(delta.text for delta in deltas) == output.text == expected.text


def drop_by_break(made: LLM) -> int:
    async def main() -> int:
        stream = made.stream("hello", LONG)
        request_id = stream.request_id
        async for _ in stream:
            break
        return request_id

    return asyncio.run(main())


def drop_by_error(made: LLM) -> int:
    async def main() -> int:
        async with made.stream("hello", LONG) as stream:
            await anext(stream)
            raise KeyError(stream.request_id)

    with pytest.raises(KeyError) as caught:
        asyncio.run(main())
    return caught.value.args[0]


def drop_by_cancelling_the_task(made: LLM) -> int:
    seen: list[Stream] = []

    async def main() -> None:
        seen.append(made.stream("hello", LONG))
        task = asyncio.create_task(read(seen[0]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    return seen[0].request_id


def drop_a_stream_never_read(made: LLM) -> int:
    return made.stream("hello", LONG).request_id


def cancel_from_outside(made: LLM) -> int:
    stream = made.stream("hello", LONG)
    next(stream)
    made.cancel(stream.request_id)
    assert sum(1 for _ in stream) < 399
    assert stream.output is not None
    assert stream.output.finish_reason == "cancelled"
    assert stream.output.text == text_of(stream.output.token_ids)
    return stream.request_id


@pytest.mark.parametrize(
    "leave",
    [
        drop_by_break,
        drop_by_error,
        drop_by_cancelling_the_task,
        drop_a_stream_never_read,
        cancel_from_outside,
    ],
)
def test_a_consumer_that_leaves_frees_its_pages_and_disturbs_nobody(tiny, leave):
    with llm(tiny) as made:
        staying = made.stream("who stays", SHORT)
        request_id = leave(made)
        gc.collect()
        assert len(list(staying)) == SHORT.max_tokens
        assert settled(made)
        assert reason_of(made, request_id) == "cancelled"


def test_a_stream_nobody_reads_is_abandoned_once_its_buffer_is_full(tiny):
    with llm(tiny, stream_buffer=5) as made:
        stream = made.stream("hello", LONG)
        assert settled(made)
        assert len(made.generate("others", SHORT)[0].token_ids) == SHORT.max_tokens
        assert sum(1 for _ in zip(range(5), stream, strict=False)) == 5
        with pytest.raises(Abandoned, match=f"request {stream.request_id}: nobody read"):
            next(stream)
        assert stream.output is None


def test_a_reader_whose_event_loop_has_closed_counts_as_gone():
    delta = Delta("a", 0, 1.0, 1.0, 1.0, 1.0)
    channel, loop = Channel(10), asyncio.new_event_loop()
    task = loop.create_task(channel.get_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not channel.put(delta)
    task._log_destroy_pending = False  # that it never finishes is the point


def test_an_interrupted_batch_leaves_nothing_running(tiny):
    def slow(_: object, logits: Tensor) -> Tensor:
        time.sleep(0.005)
        return logits

    def interrupt(done: int, most: int) -> None:
        raise KeyboardInterrupt

    with llm(tampered(tiny, slow)) as made:
        with pytest.raises(KeyboardInterrupt):
            made.generate(["a", "b"], LONG, progress=interrupt)
        assert settled(made)
        assert {reason_of(made, i) for i in (0, 1)} == {"cancelled"}


def test_closing_cuts_off_what_runs_and_refuses_what_comes(tiny):
    made = llm(tiny)
    stream = made.stream("hello", LONG)
    next(stream)
    made.close()
    made.close()
    with pytest.raises(Closed):
        list(stream)
    with pytest.raises(Closed):
        made.generate("more", SHORT)


def test_an_engine_nobody_holds_any_more_ends_its_thread(tiny):
    def threads() -> int:
        return sum(thread.name == "entropic" for thread in threading.enumerate())

    before = threads()
    made = llm(tiny)
    stream = made.stream("hello", SHORT)
    del made
    assert len(list(stream)) == SHORT.max_tokens  # the stream still holds it
    assert threads() == before + 1
    del stream
    gc.collect()
    assert threads() == before
