"""A stretch of steps in which the same requests sample: what answers for them, gathered ahead.

Which recorded row answers for a token, and the normal of its residual, do not depend on what
happens, so they are read for many steps at once; the laws still run step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controllers.core import TokenSignal
from simulator.model import TraceModel
from simulator.residual import response
from simulator.stretch_shares import Kept, Pruning

F32 = np.float32
LONGEST = 32  # steps gathered at once


@dataclass(frozen=True, slots=True)
class Script:
    """What will happen to one request, by generated position."""

    rows: np.ndarray  # recorded row that answers for each token
    normals: np.ndarray  # standard normal of each token's residual
    prompt_tokens: int
    greedy: bool
    stops: bool  # whether the last token is a stop token, or the user's limit


class Moment(NamedTuple):
    """One step of a stretch, ``[S]`` each."""

    rows: np.ndarray  # recorded rows
    positions: np.ndarray  # tokens generated before, float32
    normals: np.ndarray
    h_cal: np.ndarray  # float64
    v_cal: np.ndarray  # float32
    response: np.ndarray  # of H at T_cal
    sizes: np.ndarray  # float64 [2, S]: page units of all layers and heads, and tokens, to read


class Stretch:
    """The steps of one set of sampling requests, up to ``LONGEST`` or to the first end."""

    def __init__(
        self,
        model: TraceModel,
        pruning: Pruning,
        request_ids: tuple[int, ...],
        scripts: Sequence[Script],
        ends: Sequence[int],
        slots: np.ndarray,
        signal: TokenSignal,
    ) -> None:
        """Gather from ``ends``, the tokens each request knows in this step.

        ``slots`` is where the caller keeps their lanes, and ``signal`` the fixed signals of the
        requests with their last surprisal.
        """
        self.request_ids = request_ids
        self.slots = slots
        self.signal = signal
        self.greedy = np.array([script.greedy for script in scripts], bool)
        self.any_greedy = bool(self.greedy.any())
        # H and V at x_in of the next step, and how far they give, float64 [S]
        self.ahead: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._scripts = scripts
        first = [end - s.prompt_tokens for end, s in zip(ends, scripts, strict=True)]
        n = min(LONGEST, *(len(s.rows) - t for s, t in zip(scripts, first, strict=True)))
        if n < 1 or min(first) < 0:
            raise IndexError(f"a row of {request_ids} lies outside its script: {first}")
        parts = list(zip(scripts, first, strict=True))
        self._rows = np.array([s.rows[t : t + n] for s, t in parts], np.intp).T.copy()
        self._normals = np.array([s.normals[t : t + n] for s, t in parts]).T
        self._ends = np.array(ends) + np.arange(n)[:, None]
        self._positions = (np.array(first) + np.arange(n)[:, None]).astype(F32)
        self._h_cal, v_cal = model.h_cal[self._rows], model.v_cal[self._rows]
        self._response = response(self._h_cal, v_cal)
        self._v_cal = v_cal.astype(F32)
        units = -(-self._ends // model.page_tokens) * (model.layers * model.kv_heads)
        self._sizes = np.stack([units, self._ends], axis=1).astype(np.float64)
        self._totals = np.stack([units.sum(1), self._ends.sum(1), self._ends.max(1)], 1).tolist()
        self._first_end = min((len(s.rows) - 1 - t for s, t in parts if s.stops), default=n)
        self._pruning = pruning
        self._kept: Kept | None = None  # until somebody prunes
        self._n, self._at = n, 0

    @property
    def now(self) -> Moment:
        """The step under way."""
        t = self._at
        return Moment(
            self._rows[t], self._positions[t], self._normals[t],
            self._h_cal[t], self._v_cal[t], self._response[t], self._sizes[t],
        )  # fmt: skip

    @property
    def next_rows(self) -> np.ndarray | None:
        """The recorded rows of the next step; None where it is not gathered."""
        return self._rows[self._at + 1] if self._at + 1 < self._n else None

    @property
    def totals(self) -> tuple[int, int, int]:
        """Page units and tokens that dense rows read in this step, and the most of one row."""
        return self._totals[self._at]

    def prune(self, coverage: Sequence[float]) -> tuple[np.ndarray, np.ndarray, int]:
        """Return the kept share and the residual factor of this step, as ``Kept.read`` does."""
        if self._kept is None:
            self._kept = Kept(self._pruning, self._rows)
        return self._kept.read(coverage, self._normals[self._at], self._at)

    def takes(self, request_ids: tuple[int, ...], ends: list[int]) -> bool:
        """Tell whether the step under way is one of these requests at these lengths."""
        return (
            request_ids == self.request_ids
            and self._at < self._n
            and ends == self._ends[self._at].tolist()
        )

    def finished(self) -> dict[int, str]:
        """Return who gives a stop token in this step."""
        if self._at < self._first_end:
            return {}
        ends = self._ends[self._at].tolist()
        return {
            request_id: "stop"
            for request_id, script, end in zip(self.request_ids, self._scripts, ends, strict=True)
            if script.stops and end - script.prompt_tokens + 1 == len(script.rows)
        }

    def step(self) -> None:
        """Go on to the next step."""
        self._at += 1
