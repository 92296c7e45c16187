"""One simulation of a plan: a preset on so many servers, at a rate, on one draw of the traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from controllers.core import require
from controllers.presets import get_preset
from simulator.bootstrap import Blocks, resampled
from simulator.plan_figures import Figures, figures
from simulator.plan_store import array_digest, digest, source_digest
from simulator.scenario import Scenario, run, trajectories_of
from simulator.trajectories import Trajectories
from traces.arrivals import Arrivals

RECORDED = 0  # the draw that is the recording itself


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """What is simulated; draw 0 is the recording as it is, others are resampled from it."""

    preset: str
    replicas: int
    rate_per_s: float  # of the recording; a resampled draw keeps its own deviation from it
    draw: int


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that the points of one plan have in common."""

    scenario: Scenario
    arrivals: Arrivals  # the recording at its own rate
    blocks: Blocks
    seed: int
    percentiles: tuple[float, ...] = ()  # of latencies, that the service level asks for

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed must be >= 0", seed=self.seed)

    @cached_property
    def digest(self) -> str:
        """Hash of everything but the point that determines a point's figures."""
        scenario, lengths = self.scenario, self.arrivals
        prompts = {"prompt": lengths.prompt_tokens, "output": lengths.output_tokens}
        labels = {
            name: (list(one.names), array_digest({"codes": one.codes}))
            for name, one in (("tenants", lengths.tenants), ("classes", lengths.classes))
            if one is not None
        }
        described = {k: v for k, v in scenario.to_json().items() if k not in _OF_A_POINT}
        return digest(
            {
                "source": source_digest(),
                "numpy": np.__version__,
                "arrivals": array_digest({"times": lengths.times_s, **prompts}),
                "labels": labels,
                "block": self.blocks.length,
                "seed": self.seed,
                "percentiles": self.percentiles,
                "scenario": described,
            }
        )

    def key(self, point: Point) -> str:
        """Return the name of a point's result on disk."""
        laws = get_preset(point.preset).fingerprints()
        return digest({"setup": self.digest, "point": asdict(point), "laws": laws})

    def drawn(self, draw: int) -> Arrivals:
        """Return the traffic of a draw at its own rate."""
        if draw == RECORDED:
            return self.arrivals
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(draw,)))
        return resampled(self.arrivals, self.blocks, rng)

    def scenario_of(self, point: Point) -> Scenario:
        """Return what a point simulates. All draws are stretched by one factor."""
        traffic = self.drawn(point.draw)
        stretch = self.arrivals.rate_per_s / point.rate_per_s
        traffic = replace(traffic, times_s=traffic.times_s * stretch)
        return replace(
            self.scenario,
            arrivals=traffic,
            replicas=point.replicas,
            rate_per_s=point.rate_per_s,
        )

    def run_seed(self, draw: int) -> int:
        """Return the seed of a draw's join and residuals: the same for every preset."""
        words = np.random.SeedSequence(self.seed, spawn_key=(draw, 1)).generate_state(1)
        return int(words[0])


_OF_A_POINT = ("rate_per_s", "replicas", "arrivals")


def simulate_point(setup: Setup, point: Point, trajectories: Trajectories | None = None) -> Figures:
    """Return the figures of a point: a pure function of the setup and the point.

    ``trajectories`` of the same preset and draw save the time of the law scan.
    """
    preset, seed = get_preset(point.preset), setup.run_seed(point.draw)
    done = run(setup.scenario_of(point), preset, seed, trajectories=trajectories)
    return figures(done, setup.percentiles)


def simulate_alike(setup: Setup, points: Sequence[Point]) -> Iterator[Figures]:
    """Yield the figures of points of one preset and one draw, whose laws are scanned once."""
    preset, draw = points[0].preset, points[0].draw
    alike = all((point.preset, point.draw) == (preset, draw) for point in points)
    require(alike, "points must be of one preset and draw", points=points)
    trajectories = None
    if len(points) > 1:
        scenario = setup.scenario_of(points[0])
        trajectories = trajectories_of(scenario, get_preset(preset), setup.run_seed(draw))
    for point in points:
        yield simulate_point(setup, point, trajectories)
