"""What is recorded for each request, for laws that are called token by token as it is served.

Which recorded row answers for a token and the normal of its residual depend on no law, so they are
written down a block of arrivals at a time, on first need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulator.arrival import Arrival
from simulator.asked import Asked
from simulator.model import TraceModel
from simulator.residual import Residual, counter_key, keyed_normal
from simulator.scripts import scripts_of
from simulator.trajectories import places

BLOCK_LANES = 512


class Recorded(NamedTuple):
    """What answers for one request, by generated position, ``[L]`` each."""

    rows: np.ndarray  # int32, recorded row
    normals: np.ndarray  # float64, standard normal of the residual
    stops: bool  # whether it ends by a stop token, or by max_tokens


class Recordings:
    """The recorded rows of a workload's requests; servers share them."""

    def __init__(
        self,
        model: TraceModel,
        residual: Residual,
        arrivals: Sequence[Arrival],
        *,
        seed: int,
        block_lanes: int = BLOCK_LANES,
    ) -> None:
        """Prepare to read for ``arrivals``; ``seed`` keys the bootstrap, as in the executor."""
        self._model, self._residual, self._arrivals = model, residual, arrivals
        self._seed, self._block_lanes = seed, block_lanes
        self._places = places(arrivals)
        self._read: set[int] = set()  # blocks
        self._held: dict[int, Recorded] = {}

    def of(self, request_id: int) -> Recorded:
        """Return what answers for a request; one that was forgotten is read again, alone."""
        found = self._held.get(request_id)
        if found is not None:
            return found
        place = request_id if self._places is None else self._places[request_id]
        block = place // self._block_lanes
        if block in self._read:
            self._hold(place, place + 1)
        else:
            self._read.add(block)
            first = block * self._block_lanes
            self._hold(first, min(first + self._block_lanes, len(self._arrivals)))
        return self._held[request_id]

    def forget(self, request_id: int) -> None:
        """Drop a request that is over; one that is not held is left alone."""
        self._held.pop(request_id, None)

    def _hold(self, first: int, end: int) -> None:
        scripts = scripts_of(
            self._model, Asked.arriving(self._arrivals, first, end), seed=self._seed
        )
        ids, lengths, starts = scripts.asked.ids, scripts.lengths, scripts.starts
        key = np.repeat(counter_key(self._residual.seed, ids), lengths)
        position = np.arange(len(key)) - np.repeat(starts, lengths)
        normals = keyed_normal(key, position)
        edges = [*starts.tolist(), len(key)]
        parts = zip(ids.tolist(), edges, edges[1:], scripts.stops.tolist(), strict=False)
        for request_id, a, b, stops in parts:
            self._held[request_id] = Recorded(scripts.rows[a:b], normals[a:b], stops)
