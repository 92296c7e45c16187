"""Requests about to be scanned: what they fix, and their tokens in order of position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.compose import Shadow
from controllers.core import Law, TokenSignal
from controllers.serving.lane_table import fixed_signal
from simulator.asked import Asked
from simulator.ragged import Ragged

F32 = np.float32
PIECE = 8192  # tokens handled at once outside the passes, so that they stay in the cache


@dataclass(frozen=True, slots=True)
class Lanes:
    """Requests in order of falling length, ``[lanes]``, and their tokens by position."""

    ragged: Ragged
    rows: np.ndarray  # intp [total], recorded row of each token: casting costs more than adding
    fixed: TokenSignal  # what requests fix of their signals; the rest is zero
    enabled: np.ndarray  # bool [lanes]; coverage control minds greedy requests too
    greedy: np.ndarray  # bool [lanes]
    min_coverage: np.ndarray  # float64 [lanes]
    prompt: np.ndarray  # int [lanes], tokens
    ids: np.ndarray  # int [lanes]
    off_at: np.ndarray | None  # int [lanes], token from which control is off; None: never

    @classmethod
    def of(cls, asked: Asked, ragged: Ragged, rows: np.ndarray, off_at: np.ndarray | None) -> Lanes:
        """Gather what requests, in order of falling length, fix of their lanes."""
        return cls(
            ragged=ragged,
            rows=rows.astype(np.intp),
            fixed=_signals(asked),
            enabled=asked.each("enabled", bool),
            greedy=asked.each("greedy", bool),
            min_coverage=asked.each("min_coverage", np.float64),
            prompt=asked.prompt_tokens,
            ids=asked.ids,
            off_at=off_at,
        )


def applied(law: Law) -> Law:
    """Return the law whose commands are carried out: beneath a shadow, the applied one."""
    while isinstance(law, Shadow):
        law = law.applied
    return law


def _signals(asked: Asked) -> TokenSignal:
    """Return what the requests fix of their signals, one lane each."""
    made = [fixed_signal(kind, np.zeros(1, F32)) for kind in asked.kinds]
    return TokenSignal(*(np.concatenate(leaves)[asked.kind] for leaves in zip(*made, strict=True)))
