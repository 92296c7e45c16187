"""Run the points of a plan on several processes, or on a Ray cluster, and remember each result.

Results are pure functions of their points, so the number of processes and the order in which they
answer change nothing but the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import cast

from controllers.core import require
from simulator.plan_figures import Figures
from simulator.plan_point import Point, Setup, simulate_alike
from simulator.plan_store import Store
from traces.spread import spread

Progress = Callable[[int, int], None]  # simulations done, and asked for so far
Answer = tuple[Point, Figures]


class Pool:
    """Simulates points that the store does not know yet."""

    def __init__(
        self,
        setup: Setup,
        store: Store,
        *,
        jobs: int = 0,
        cluster: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Use ``jobs`` processes (0: one per processor), or a Ray cluster's."""
        require(jobs >= 0, "jobs must be >= 0", jobs=jobs)
        self._setup, self._store, self._progress = setup, store, progress
        self._cluster = cluster
        if cluster:
            register_ray()
        self._jobs = (-1 if cluster else os.cpu_count() or 1) if jobs == 0 else jobs
        self.simulated = self.asked = 0

    def figures(self, points: Iterable[Point]) -> dict[Point, Figures]:
        """Return the figures of every distinct point, in the order asked for."""
        wanted = list(dict.fromkeys(points))
        keys = {point: self._setup.key(point) for point in wanted}
        known = {point: self._store.get(keys[point]) for point in wanted}
        missing = [point for point in wanted if known[point] is None]
        self.asked += len(missing)
        for point, found in self._simulated(missing):
            self._store.put(keys[point], found)
            known[point] = found
            self.simulated += 1
            if self._progress is not None:
                self._progress(self.simulated, self.asked)
        return {point: found for point, found in known.items() if found is not None}

    def _simulated(self, points: list[Point]) -> Iterator[Answer]:
        if not points:
            return iter(())
        batches, jobs = self._batches(points), self._jobs
        if self._cluster:
            return chain.from_iterable(self._on_ray(batches))
        if min(jobs, len(batches)) == 1:  # one by one, so that each is stored as it comes
            return chain.from_iterable(map(partial(_each, self._setup), batches))
        return chain.from_iterable(spread(partial(_all, self._setup), batches, jobs, ordered=False))

    def _batches(self, points: list[Point]) -> list[list[Point]]:
        """Put points that share a law scan together, unless processors would then go idle."""
        alike: dict[tuple[str, int], list[Point]] = {}
        for point in points:
            alike.setdefault((point.preset, point.draw), []).append(point)
        if self._cluster or len(alike) < min(self._jobs, len(points)):
            return [[point] for point in points]
        return list(alike.values())

    def _on_ray(self, batches: list[list[Point]]) -> list[list[Answer]]:
        """Return all answers at once: joblib's Ray backend has no generator."""
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="ray", n_jobs=self._jobs):
            found = Parallel()(delayed(_all)(self._setup, batch) for batch in batches)
        return cast("list[list[Answer]]", found)


def register_ray() -> None:
    """Make joblib's Ray backend known and connect; ``ValueError`` where Ray is not installed.

    An address in ``RAY_ADDRESS`` is used; without one a cluster is started on this machine.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  # an optional extra
        from ray.util.joblib import (  # pyright: ignore[reportMissingImports]
            register_ray as register,
        )
    except ImportError:
        raise ValueError(
            "--cluster needs Ray, which is not installed: pip install 'ray>=2.9'"
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error")
    register()


def _each(setup: Setup, batch: list[Point]) -> Iterator[Answer]:
    return zip(batch, simulate_alike(setup, batch), strict=True)


def _all(setup: Setup, batch: list[Point]) -> list[Answer]:
    return list(_each(setup, batch))
