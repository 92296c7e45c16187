"""A grid of simulations: rates x presets x numbers of servers, on the same traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from controllers.core import require
from controllers.presets import get_preset
from simulator.plan_cost import Price, priced
from simulator.plan_figures import Figures, Spread
from simulator.plan_point import RECORDED, Point
from simulator.plan_pool import Pool
from simulator.plan_verdict import spreads


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of the grid: the recording, and where others like it fall."""

    preset: str
    replicas: int
    rate_per_s: float
    recorded: Figures
    spread: dict[str, Spread | None]

    def to_json(self) -> dict[str, object]:
        """Return the cell as JSON values."""
        figures = {
            name: {"recorded": value, "other_hours": spread and spread.to_json()}
            for name, value in self.recorded.items()
            if not name.startswith("caveat.")
            for spread in (self.spread.get(name),)
        }
        where = {"preset": self.preset, "replicas": self.replicas, "rate_per_s": self.rate_per_s}
        return {**where, "figures": figures}

    def flat(self) -> dict[str, object]:
        """Return the cell as one row of a table: low and high beside every figure."""
        row: dict[str, object] = {
            "preset": self.preset,
            "replicas": self.replicas,
            "rate_per_s": self.rate_per_s,
        }
        for name, value in self.recorded.items():
            spread = self.spread.get(name)
            row[name] = value
            row[f"{name}.low"] = None if spread is None else spread.low
            row[f"{name}.high"] = None if spread is None else spread.high
        return row


def sweep(
    pool: Pool,
    *,
    presets: Sequence[str],
    rates_per_s: Sequence[float],
    replicas: Sequence[int],
    draws: int,
    price: Price,
) -> list[Cell]:
    """Simulate the whole grid at once, in order of preset, number of servers, rate.

    ``draws`` resamples go beside the recording; 0 leaves the intervals out.
    """
    for name in presets:
        get_preset(name)
    require(draws == 0 or draws >= 2, "seeds must be 0, or >= 2 for an interval", seeds=draws)
    for rate in rates_per_s:
        require(0.0 < rate < float("inf"), "rates must be finite and > 0", rate=rate)
    for count in replicas:
        require(count >= 1, "replicas must be >= 1", replicas=count)
    grid = list(product(presets, replicas, rates_per_s))
    hours = range(RECORDED, draws + 1)
    found = pool.figures(Point(*where, draw) for where in grid for draw in hours)
    cells = []
    for preset, count, rate in grid:
        runs = [priced(found[Point(preset, count, rate, draw)], count, price) for draw in hours]
        cells.append(
            Cell(
                preset=preset,
                replicas=count,
                rate_per_s=rate,
                recorded=runs[0],
                spread=dict(spreads(runs[1:])),
            )
        )
    return cells
