"""Samplers in their fixed order: temperature, then truncation; and the lanes left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import State, TokenSignal
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import Sampler, Shaped, select
from controllers.samplers.heat import Tempered
from controllers.temperature import finite_user

USER_TEMPERATURE = Tempered()  # the user's own


class PipelineMemo(NamedTuple):
    """What each stage shaped, and which lanes are under control, ``[B]``."""

    stages: tuple[Shaped, ...]
    enabled: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Penalties, mask, measure, **temperature, truncation**, sample: the middle of a step.

    ``temperature`` sees the masked row and sets T (``Tempered`` wraps a law; the default is the
    user's own); ``stages`` cut or reshape what it leaves, first to last. Lanes with ``enabled`` = 0
    (greedy, pinned, switched off) are sampled at the user's ln T, whole row, and their states hold;
    a user's ln T that is not finite counts as 0.
    """

    temperature: Sampler = USER_TEMPERATURE
    stages: tuple[Sampler, ...] = ()

    def init(self, signal: TokenSignal) -> tuple[State, ...]:
        """Start every stage."""
        return tuple(stage.init(signal) for stage in self._all())

    def shape(self, state: tuple[State, ...], logits: Array, signal: TokenSignal) -> Shaped:
        """Run the stages in order; ln T applied is the first one's where control is on."""
        on = signal.enabled > 0.0
        done: list[Shaped] = []
        row = logits
        for stage, before in zip(self._all(), state, strict=True):
            done.append(stage.shape(before, row, signal))
            row = done[-1].logits
        x_user = finite_user(signal)
        user = rows.tempered(logits, x_user)
        x = ops.where(on, done[0].x, x_user)
        memo = PipelineMemo(tuple(done), signal.enabled)
        return Shaped(ops.where(on[:, None], row, user), x, memo)

    def accept(self, state: tuple[State, ...], shaped: Shaped, token: Array) -> tuple[State, ...]:
        """Tell every stage the kept token; lanes out of control keep their state."""
        memo: PipelineMemo = shaped.memo
        on = memo.enabled > 0.0
        parts = zip(self._all(), state, memo.stages, strict=True)
        return tuple(select(on, s.accept(old, part, token), old) for s, old, part in parts)

    def _all(self) -> tuple[Sampler, ...]:
        return (self.temperature, *self.stages)
