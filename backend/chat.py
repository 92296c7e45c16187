"""A conversation over a live engine: turns kept, the oldest forgotten when they no longer fit."""

from __future__ import annotations

from dataclasses import replace

from backend.errors import RequestTooLong
from backend.llm import LLM, Message
from backend.params import SamplingParams
from backend.stream import Stream


class Conversation:
    """Messages of a user and the model in turn, after an optional system message.

    Each turn is sent with all before it. Pages of earlier prompts are found in the prefix cache;
    pages of replies are not shared, so the newest reply is computed again as part of the prompt.
    """

    def __init__(self, llm: LLM, params: SamplingParams, *, system: str | None = None) -> None:
        self._llm = llm
        self._params = params
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._turns: list[Message] = []
        self._asked = 0

    @property
    def messages(self) -> list[Message]:
        """The messages so far, as the model sees them."""
        return [*self._system, *self._turns]

    def ask(self, text: str) -> tuple[Stream, int]:
        """Add a user's turn; return the reply under way and how many old messages were dropped.

        The i-th turn's seed is the parameters' plus i. Raises ``RequestTooLong``, and adds
        nothing, if the turn alone is too long.
        """
        turns = [*self._turns, {"role": "user", "content": text}]
        params = replace(self._params, seed=self._params.seed + self._asked)
        for dropped in range(0, len(turns), 2):  # a question goes with its answer
            left = turns[dropped:]
            ids = self._llm.chat_ids([*self._system, *left])
            try:
                stream = self._llm.stream(ids, params)
            except RequestTooLong:
                if len(left) == 1:
                    raise
                continue
            self._turns = left
            self._asked += 1
            return stream, dropped
        raise AssertionError("turns alternate, so the newest is tried alone")

    def answered(self, text: str) -> None:
        """Add the model's reply, or as much of it as came."""
        self._turns.append({"role": "assistant", "content": text})

    def reset(self) -> None:
        """Forget everything but the system message."""
        self._turns.clear()
