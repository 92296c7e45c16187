"""A tiny model behind the library, and what its tests ask of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from backend.llm import LLM
from backend.models import LoadedModel
from backend.params import Delta, SamplingParams
from backend.stream import Stream
from controllers.presets import Preset
from tests.backend.tiny import (
    EVEN_IF_SHORT,
    STEP_LAW,
    STOP,
    tampered,
)

LONG = SamplingParams(max_tokens=400, ignore_stop=True)  # longer than any test lasts
MEDIUM = SamplingParams(max_tokens=40, ignore_stop=True)
SHORT = SamplingParams(max_tokens=6, ignore_stop=True)


def llm(loaded: LoadedModel, preset: Preset | str = "full", **options: Any) -> LLM:
    given = {"step_law": STEP_LAW, "pool_tokens": 2048, "sparse": EVEN_IF_SHORT, **options}
    return LLM(loaded, preset, **given)


def settled(made: LLM) -> bool:
    """Wait until every request is over; return whether every page is free."""
    end = time.monotonic() + 10.0
    while made._worker._tickets and time.monotonic() < end:
        time.sleep(0.002)
    return not made._worker._tickets and made._engine.loop.scheduler.pool.n_held == 0


def reason_of(made: LLM, request_id: int) -> str | None:
    ledger = made._engine.ledger
    return ledger.reasons[ledger.row_of[request_id]]


class Gate:
    """A model that takes as many steps as it is let: what happens between two steps is certain."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._steps = threading.Semaphore(0)
        self.loaded = tampered(loaded, self._pass)

    def let(self, steps: int) -> None:
        self._steps.release(steps)

    def _pass(self, _: object, logits: Tensor) -> Tensor:
        assert self._steps.acquire(timeout=20.0), "the test let too few steps through"
        return logits


def text_of(tokens: Sequence[int]) -> str:
    return bytes(token for token in tokens if token < STOP).decode("latin-1")


async def read(stream: Stream) -> list[Delta]:
    return [delta async for delta in stream]


def temperatures(deltas: Sequence[Delta]) -> set[float]:
    return {round(delta.temperature, 6) for delta in deltas}
