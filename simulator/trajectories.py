"""Trajectories of a workload's requests, scanned a block of arrivals at a time on first need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np

from controllers.core import require
from controllers.preset import Preset
from simulator.arrival import Arrival, ArrivalTable, same_requests
from simulator.asked import Asked
from simulator.model import TraceModel
from simulator.residual import Residual
from simulator.scan import NEVER_OFF, Trajectory, scan
from simulator.scripts import scripts_of

BLOCK_LANES = 2048  # enough to hide numpy's overhead, small in memory


class Trajectories:
    """What the laws of a preset do to each request of a workload, and nothing of when.

    Neighbours in time are scanned together. A trajectory is a view into the arrays of its block, so
    a block's memory goes with the last of its requests. Where several runs serve one workload under
    one preset, at other loads or on other machines, ``keep`` lets them share one scan.
    """

    def __init__(
        self,
        model: TraceModel,
        residual: Residual,
        preset: Preset,
        arrivals: Sequence[Arrival],
        *,
        seed: int,
        block_lanes: int = BLOCK_LANES,
        keep: bool = False,
    ) -> None:
        """Prepare to scan ``arrivals``; ``seed`` keys the bootstrap, as in ``TraceExecutor``.

        ``keep`` holds every trajectory for as long as this object lives (33 bytes a token).
        """
        require(block_lanes >= 1, "block_lanes must be >= 1", block_lanes=block_lanes)
        self._model, self._residual, self._preset = model, residual, preset
        self._arrivals, self._seed, self._block_lanes = arrivals, seed, block_lanes
        self._keep = keep
        self._index = places(arrivals)
        self._scanned: set[int] = set()  # blocks
        self._held: dict[int, Trajectory] = {}
        self._off_at: dict[int, int] = {}  # of requests whose control was switched off
        self._disabled: dict[int, Trajectory] = {}  # theirs, in the place of those held

    def shared(
        self,
        model: TraceModel,
        residual: Residual,
        preset: Preset,
        arrivals: Sequence[Arrival],
        *,
        seed: int,
    ) -> Trajectories:
        """Return the same trajectories for one more run, in which nobody is switched off yet.

        ``ValueError`` where that run asks for something else; times of arrival do not matter.
        """
        same = {
            "model": model is self._model,
            "residual": residual.seed == self._residual.seed
            and np.array_equal(residual.coverages, self._residual.coverages)
            and np.array_equal(residual.sigma, self._residual.sigma),
            "preset": (preset.temperature, preset.coverage, preset.probe_every)
            == (self._preset.temperature, self._preset.coverage, self._preset.probe_every)
            and preset.sparse_min_context == self._preset.sparse_min_context,
            "requests": same_requests(arrivals, self._arrivals),
            "seed": seed == self._seed,
        }
        other = [name for name, equal in same.items() if not equal]
        require(not other, "trajectories are of another run", differ=other)
        mine = copy(self)
        mine._off_at, mine._disabled = {}, {}
        return mine

    def of(self, request_id: int) -> Trajectory:
        """Return the trajectory of a request; one that was forgotten is scanned again, alone."""
        if request_id in self._off_at:
            return self._disabled.get(request_id) or self._without_control(request_id)
        found = self._held.get(request_id)
        if found is not None:
            return found
        index = self._place(request_id)
        block = index // self._block_lanes
        if block in self._scanned:
            self._hold(index, index + 1)
        else:
            self._scanned.add(block)
            first = block * self._block_lanes
            self._hold(first, min(first + self._block_lanes, len(self._arrivals)))
        return self._held[request_id]

    def forget(self, request_id: int) -> None:
        """Drop a request that is over, unless all are kept; one that is not held is left alone."""
        if not self._keep:
            self._held.pop(request_id, None)
        self._disabled.pop(request_id, None)

    def settle(self, request_id: int, stop: int) -> None:
        """Do nothing: every token is known ahead."""

    def disable(self, request_id: int, first_token: int) -> Trajectory:
        """Switch a request's control off from ``first_token`` on; return its new trajectory.

        Tokens before it stay as they were. A request that is off already stays off from there.
        """
        known = self._off_at.get(request_id, NEVER_OFF)
        self._off_at[request_id] = min(first_token, known)
        if not self._keep:
            self._held.pop(request_id, None)
        return self._without_control(request_id)

    def _place(self, request_id: int) -> int:
        return request_id if self._index is None else self._index[request_id]

    def _without_control(self, request_id: int) -> Trajectory:
        index = self._place(request_id)
        off_at = np.array([self._off_at[request_id]], np.int64)
        ((_, made),) = self._scan(index, index + 1, off_at)
        self._disabled[request_id] = made
        return made

    def _hold(self, first: int, end: int) -> None:
        self._held.update(self._scan(first, end))

    def _scan(
        self, first: int, end: int, off_at: np.ndarray | None = None
    ) -> Iterator[tuple[int, Trajectory]]:
        asked = Asked.arriving(self._arrivals, first, end)
        scripts = scripts_of(self._model, asked, seed=self._seed)
        made = scan(scripts, self._model, self._residual, self._preset, off_at=off_at)
        return zip(asked.ids.tolist(), made, strict=True)


def places(arrivals: Sequence[Arrival]) -> dict[int, int] | None:
    """Return the place of each request by id; None where ids are places already."""
    if isinstance(arrivals, ArrivalTable):
        return None
    index = {arrival.request.request_id: place for place, arrival in enumerate(arrivals)}
    return None if all(map(int.__eq__, index, index.values())) else index
