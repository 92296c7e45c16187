"""Law states kept lane by lane for requests that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controllers.core import Law, LoadSignal, State, TokenSignal, put_lanes, take_lanes, tree_map
from controllers.law_steps import LawSteps

_FIRST_LANES = 64


class LaneBank:
    """One law's state, one lane per request, float32 numpy; lanes are reused after ``release``.

    A request's state starts at ``law.init`` of the first signal seen for it and survives
    preemption, so its trajectory does not depend on whom it is batched with.
    """

    def __init__(self, law: Law) -> None:
        self._law = law
        self._state: State = ()
        self._lanes = 0
        self._lane_of: dict[int, int] = {}
        self._spare: list[int] = []
        # Who was advanced last, and their states: a batch comes again and again, and its lanes are
        # put into ``_state`` only when another one does.
        self._together: Sequence[int] | None = None
        self._steps = LawSteps(law)

    @property
    def capacity(self) -> int:
        """Lanes there is room for: at most twice the most requests held at once, or 64."""
        return self._lanes

    def update(self, request_ids: Sequence[int], signal: TokenSignal | LoadSignal) -> np.ndarray:
        """Advance the lanes of ``request_ids`` (distinct) by one signal; return commands."""
        # Failed rows bring NaN and infinities; every law states what it does with them.
        with np.errstate(invalid="ignore", over="ignore"):
            if request_ids != self._together:
                self._gather(request_ids, signal)
            return self._steps.step(signal)

    def lanes(self, request_ids: Sequence[int]) -> State:
        """Return the states of ``request_ids``, lanes in that order."""
        self._put_back()
        return take_lanes(self._state, self._index(request_ids))

    def release(self, request_id: int) -> None:
        """Forget a request; unknown ones are ignored, since not every request was sampled."""
        if request_id in self._lane_of:
            self._put_back()
            self._spare.append(self._lane_of.pop(request_id))

    def _gather(self, request_ids: Sequence[int], signal: TokenSignal | LoadSignal) -> None:
        """Take out the lanes of ``request_ids``, of which the fresh ones start at ``signal``."""
        self._put_back()
        fresh = [i for i, request_id in enumerate(request_ids) if request_id not in self._lane_of]
        if fresh:
            self._enter([request_ids[i] for i in fresh], np.array(fresh), signal)
        self._together = request_ids
        self._steps.begin(take_lanes(self._state, self._index(request_ids)), signal)

    def _put_back(self) -> None:
        if self._together is not None:
            out = self._steps.state()
            self._state = put_lanes(self._state, self._index(self._together), out)
            self._together = None

    def _index(self, request_ids: Sequence[int]) -> np.ndarray:
        return np.array([self._lane_of[request_id] for request_id in request_ids])

    def _enter(
        self, request_ids: list[int], rows: np.ndarray, signal: TokenSignal | LoadSignal
    ) -> None:
        start = take_lanes(self._law.init(signal), rows)
        if self._lanes == 0:
            self._state = start
        if len(self._spare) < len(request_ids):
            lanes = max(_FIRST_LANES, 2 * self._lanes, self._lanes + len(request_ids))
            self._spare.extend(range(lanes - 1, self._lanes - 1, -1))
            # Repeated lanes are only room: each is overwritten before it is read.
            self._state = tree_map(
                lambda leaf: np.resize(leaf, (lanes, *leaf.shape[1:])), self._state
            )
            self._lanes = lanes
        lanes_taken = [self._spare.pop() for _ in request_ids]
        self._lane_of.update(zip(request_ids, lanes_taken, strict=True))
        self._state = put_lanes(self._state, np.array(lanes_taken), start)
