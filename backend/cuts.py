"""Truncations between temperature and sampling: the stages of a preset, one lane per request."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from controllers.core import State, TokenSignal
from controllers.samplers import Pipeline, Sampler, Shaped
from controllers.serving.lane_table import LaneTable
from controllers.serving.request import Request


class Cuts:
    """Runs the stages of a preset on the rows of a step; without stages it does nothing.

    Entropies are measured before the cut, so laws and logs do not see it. Lanes out of control
    (greedy, pinned, switched off) keep their whole row.
    """

    def __init__(self, stages: tuple[Sampler, ...], device: torch.device | str = "cpu") -> None:
        self._stages = stages
        self._pipeline = Pipeline(stages=stages)
        self._lanes = LaneTable(self._pipeline, torch.zeros(1, device=device))
        self._open: tuple[np.ndarray, State, Shaped] | None = None

    def add(self, request: Request) -> None:
        """Give a request its lane."""
        if self._stages:
            self._lanes.add(request)

    def release(self, request_id: int) -> None:
        """Free the lane of a request; one that has none is left alone."""
        self._lanes.release(request_id)

    def row(
        self, request_ids: tuple[int, ...], logits: Tensor, signal: TokenSignal, command: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the rows ``[S, n]`` to sample from and the ln T still to be applied, ``[S]``."""
        if not self._stages:
            return logits, command
        slots = self._lanes.slots(request_ids)
        state, _ = self._lanes.read(slots)
        shaped = self._pipeline.shape(state, logits, signal._replace(x_user=command))
        self._open = (slots, state, shaped)
        return shaped.logits, torch.zeros_like(command)

    def keep(self, tokens: Tensor) -> None:
        """Tell the stages the tokens ``[S]`` drawn from the last rows; -1 where a row failed."""
        if self._open is not None:
            slots, state, shaped = self._open
            self._lanes.write_state(slots, self._pipeline.accept(state, shaped, tokens))
            self._open = None
