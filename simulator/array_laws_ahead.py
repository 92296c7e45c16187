"""What is recorded of the next tokens of lanes that go on together, gathered ahead of the laws.

No law can move any of it, and gathered for several steps at once it costs a step less. What the
laws then say of these tokens is kept beside it until it is written down.
"""

from __future__ import annotations

import numpy as np

from simulator.array_slots import POSITION, PROMPT, SIGNALS, Slots
from simulator.model import TraceModel
from simulator.residual import response
from simulator.scan_lanes import F32


class Recorded:
    """What does not change: the recording, and what a dense row reads by length of context."""

    def __init__(self, model: TraceModel, *, max_context: int, dense: bool) -> None:
        """Read ``model``; ``dense`` if no row is ever pruned."""
        self.h_cal, self.v_cal, self.dense = model.h_cal, model.v_cal, dense
        self.levels = model.shares.shares.shape[1]
        units = -(-np.arange(max_context + 1) // model.page_tokens)
        # KV tokens and page units.
        self.reads = np.stack([np.arange(max_context + 1), units * model.layers * model.kv_heads])
        self.reads = self.reads.astype(np.float64)


class Ahead:
    """The next ``steps`` tokens of lanes, ``[steps, B]`` but for what is said."""

    def __init__(self, recorded: Recorded, slots: Slots, lanes: np.ndarray, steps: int) -> None:
        """Look at what follows the positions of the slots ``lanes``."""
        whole = slots.whole.take(lanes, axis=1)
        along = np.arange(steps + 1)[:, None]
        self.steps, self._slots = steps, slots
        self.position = along[:-1] + whole[POSITION]
        self._at = along + (whole[POSITION] + lanes * slots.stride + 1)
        # Past its last token a lane finds rows of others, which nobody uses.
        rows = slots.rows.take(self._at, mode="clip")
        self.rows = rows.reshape(-1)  # [(steps + 1) * B]: those of two steps lie side by side
        self.h_cal, v_cal = recorded.h_cal.take(rows[:-1]), recorded.v_cal.take(rows[:-1])
        self.v_cal, self.gives = v_cal, response(self.h_cal, v_cal)
        self.context = self.position + whole[PROMPT]
        self.surprisal = slots.surprisal_before(self._at[0])
        self.said = np.empty((SIGNALS, steps, len(lanes)), F32)
        self._written = 0
        if not recorded.dense:
            self.entries = rows[:-1] * recorded.levels
            self.normals = slots.normals.take(self._at[:-1], mode="clip")
            self.reads = recorded.reads.take(self.context, axis=1, mode="clip")

    def write(self, step: int) -> None:
        """Write down what was said of the tokens before ``step``, counted from the first."""
        if step > self._written:
            there = slice(self._written, step)
            self._slots.say(self._at[there], self.said[:, there])
            self._written = step
