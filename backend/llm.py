"""The live engine as a library: generate, chat and stream under a control preset."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from backend.arguments import flags, integer, integers, listed, number, short, text
from backend.channel import Channel
from backend.engine import Engine
from backend.models import LoadedModel, load
from backend.params import Output, SamplingParams
from backend.place import place_of
from backend.prompts import Prompt, params_each, params_of, prompts_of, text_or_ids
from backend.setup import (
    PAGE_TOKENS,
    default_limits,
    default_step_law,
    encode_messages,
    page_unit_bytes,
)
from backend.sparse import SparseAttention
from backend.stops import Reply
from backend.stream import Stream
from backend.ticket import Ticket
from backend.worker import Worker
from controllers.core import require
from controllers.presets import Preset, get_preset, shadowed
from controllers.samplers import Sampler
from controllers.serving.metrics import Metric, summarise
from controllers.steplaw import StepLaw

Message = Mapping[str, str]  # a role and a content
Progress = Callable[[int, int], None]  # tokens so far, tokens at most
POOL_TOKENS = 16384  # its memory is taken as pages are first written
STREAM_BUFFER = 1024  # deltas nobody has read
POLL_S = 0.1  # between two looks at how far a batch has come


class LLM:
    """A model behind one engine in a thread of its own; every thread may call every method.

    ``preset`` names the control laws, or is a preset of your own; ``stages`` and
    ``kv_budget_pages`` replace its truncations and its eviction budget: from 8 tokens into its
    reply a request is cut back to the budget once it holds more than ``Preset.kv_burst_pages`` (8)
    above it; shared pages stay. With ``shadow`` requests
    run under ``baseline`` and their metrics tell what the preset would have done. With
    ``score_prompts`` the surprisal of prompt tokens is taken too, at the price of a logit row each.
    At most ``max_seqs + max_waiting`` requests are held, more are refused (None: no bound). A
    stream holds up to ``stream_buffer`` unread deltas; one more and its request is cancelled.
    ``metrics`` speaks of the last ``history`` to twice ``history`` finished requests (None: all).
    ``device`` and ``dtype`` say where a model is loaded (``backend.place``); one that is loaded
    already stays where it is.


    Raises:
        ModelError, UnsupportedModel: the model cannot be loaded, or not served exactly.
        OutOfMemory: the KV pool is larger than the free memory.
        ValueError: another argument is wrong.
    """

    def __init__(
        self,
        model: str | LoadedModel | None = None,
        preset: str | Preset = "full",
        *,
        max_seqs: int = 16,
        token_budget: int = 512,
        pool_tokens: int = POOL_TOKENS,
        page_tokens: int = PAGE_TOKENS,
        prefix_caching: bool = True,
        sparse: SparseAttention | None = None,
        stages: Sequence[Sampler] | None = None,
        kv_budget_pages: int | None = None,
        shadow: bool = False,
        score_prompts: bool = False,
        t_cal: float = 1.0,
        max_waiting: int | None = None,
        stream_buffer: int = STREAM_BUFFER,
        history: int | None = 1024,
        step_law: StepLaw | None = None,
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        integers(
            max_seqs=max_seqs,
            token_budget=token_budget,
            pool_tokens=pool_tokens,
            page_tokens=page_tokens,
            stream_buffer=stream_buffer,
        )
        optional = {"kv_budget_pages": kv_budget_pages, "max_waiting": max_waiting}
        integers(**{k: v for k, v in optional.items() if v is not None})
        flags(prefix_caching=prefix_caching, shadow=shadow, score_prompts=score_prompts)
        require(number("t_cal", t_cal) > 0.0, "t_cal must be > 0", t_cal=t_cal)
        if history is not None:
            require(
                integer("history", history) >= 1, "history must be >= 1 or None", history=history
            )
        require(page_tokens >= 1, "page_tokens must be >= 1", page_tokens=page_tokens)
        require(
            pool_tokens >= 1 and pool_tokens % page_tokens == 0,
            f"pool_tokens must be a multiple of page_tokens = {page_tokens}",
            pool_tokens=pool_tokens,
        )
        require(
            max_waiting is None or max_waiting >= 0,
            "max_waiting must be >= 0 or None",
            max_waiting=max_waiting,
        )
        require(stream_buffer >= 1, "stream_buffer must be >= 1", stream_buffer=stream_buffer)
        chosen = _preset(preset, stages, kv_budget_pages)
        if isinstance(model, LoadedModel):
            self.loaded = model
        else:
            where, kind = place_of(device, dtype)
            self.loaded = load(model, device=where, dtype=kind)
        limits = default_limits(
            self.loaded,
            max_seqs=max_seqs,
            token_budget=token_budget,
            pool_tokens=pool_tokens,
            page_tokens=page_tokens,
        )
        self._engine = Engine(
            self.loaded,
            shadowed(chosen) if shadow else chosen,
            limits,
            step_law or default_step_law(),
            t_cal=t_cal,
            history=history,
            sparse=sparse or SparseAttention(),
            prefix_caching=prefix_caching,
            score_prompts=score_prompts,
        )
        self._stream_buffer = stream_buffer
        self._ids = itertools.count()
        self._worker = Worker(self._engine, max_waiting=max_waiting)
        self._close = weakref.finalize(self, self._worker.stop)

    def generate(
        self,
        prompts: Prompt | Iterable[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[Output]:
        """Continue each prompt; return one output per prompt, in their order.

        A prompt is text, taken as it is (:meth:`chat` applies the model's format), or token ids.
        ``params`` are for all, or one per prompt. Interrupted, it cancels what still runs.

        Raises:
            RequestTooLong, ValueError: a prompt or its parameters cannot be served; none was.
            Overloaded: there is no room in the queue for all of them; none was served.
            EngineFault, Closed: what the engine met on the way.
        """
        asked = prompts_of(prompts)
        tickets = [
            self._ticket(prompt, each)
            for prompt, each in zip(asked, params_each(params, len(asked)), strict=True)
        ]
        self._worker.submit(tickets)
        try:
            self._wait(tickets, progress)
        except BaseException:
            for ticket in tickets:
                self._worker.cancel(ticket.request.request_id)
            raise
        return [ticket.channel.result() for ticket in tickets]

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Output:
        """Reply to a conversation of ``{"role": ..., "content": ...}``, in the model's format.

        Sent again with the reply and the next turn, the pages of these messages are found in the
        prefix cache; the reply is computed again as part of the prompt.
        """
        return self.generate([self.chat_ids(messages)], params)[0]

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a conversation, for :meth:`stream` or :meth:`generate`."""
        return encode_messages(self.loaded, messages)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Stream:
        """Continue a prompt and return its deltas as they come, for ``for`` or ``async for``.

        Any number of streams run at once. Raises as :meth:`generate` does.
        """
        ticket = self._ticket(prompt, params_of(params), streams=True)
        self._worker.submit([ticket])
        return Stream(ticket.request.request_id, ticket.channel, self._worker.cancel, self)

    def cancel(self, request_id: int) -> None:
        """Stop a request; its output has the reason "cancelled" and the tokens so far."""
        self._worker.cancel(request_id)

    def disable(self, request_id: int) -> None:
        """Return a request to baseline control from its next step on (the kill switch)."""
        self._worker.disable(request_id)

    def disable_all(self) -> None:
        """Return every request, now and later, to the user's T and dense attention, for good.

        The order of requests stays that of the preset's priority law.
        """
        self._worker.disable_all()

    def metrics(self) -> dict[str, Metric]:
        """Return the engine's metrics; call it while nothing runs."""
        engine = self._engine
        unit = page_unit_bytes(self.loaded, engine.limits.page_tokens)
        return summarise(engine.ledger, step_law=engine.step_law, bytes_per_page_unit=unit)

    def close(self) -> None:
        """Cut off what still runs and stop the engine; again is harmless."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ticket(self, prompt: Prompt, params: SamplingParams, *, streams: bool = False) -> Ticket:
        given = text_or_ids(prompt)
        if isinstance(given, str):
            given = tuple(self.loaded.tokenizer(text("prompt", given)).input_ids)
        ids = given
        request = params.request(next(self._ids), len(ids))
        self._engine.check(request, ids)
        vocabulary = self.loaded.vocabulary
        for token in params.stop_token_ids:
            require(
                token < vocabulary,
                f"stop_token_ids must lie in [0, {vocabulary})",
                stop_token_id=token,
            )
        stop_ids = set(params.stop_token_ids)
        stop_ids |= frozenset() if params.ignore_stop else self.loaded.stop_ids
        return Ticket(
            request=request,
            prompt=ids,
            reply=Reply(self._decode, stop_ids=stop_ids, stops=params.stop),
            channel=Channel(self._stream_buffer),
            arrived_ns=self._engine.now_ns(),
            streams=streams,
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.loaded.tokenizer.decode(tokens, skip_special_tokens=True)

    def _wait(self, tickets: Sequence[Ticket], progress: Progress | None) -> None:
        most = sum(ticket.request.max_tokens for ticket in tickets)
        for ticket in tickets:
            while not ticket.channel.wait(None if progress is None else POLL_S):
                if progress is not None:
                    progress(sum(each.tokens for each in tickets), most)


def _preset(
    preset: str | Preset, stages: Sequence[Sampler] | None, kv_budget_pages: int | None
) -> Preset:
    chosen = get_preset(preset) if isinstance(preset, str) else preset
    if not isinstance(chosen, Preset):
        raise ValueError(f"preset must be a name or a Preset; got preset={short(preset)}")
    if stages is not None:
        for stage in listed("stages", stages):
            if isinstance(stage, type) or not callable(getattr(stage, "shape", None)):
                raise ValueError(f"stages must be samplers; got {short(stage)}")
        chosen = replace(chosen, stages=tuple(stages))
    if kv_budget_pages is not None:
        chosen = replace(chosen, kv_budget_pages=kv_budget_pages)
    return chosen
