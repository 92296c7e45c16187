"""What a load costs: GPU time, and money where a price is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controllers.core import require
from simulator.plan_figures import Figures, Spread
from simulator.plan_search import Load
from simulator.plan_verdict import spreads

GPU_HOURS = "gpu_hours_per_million_tokens"
USD = "usd_per_million_tokens"
UTILISATION = "utilisation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one server is made of and costs."""

    gpus: int  # of one server: its tensor-parallel degree
    usd_per_gpu_hour: float | None  # None: not known, and not guessed

    def __post_init__(self) -> None:
        require(self.gpus >= 1, "gpus must be >= 1", gpus=self.gpus)
        usd = self.usd_per_gpu_hour
        paid = usd is None or 0.0 < usd < float("inf")
        require(paid, "usd_per_hour must be > 0", usd_per_hour=usd)


def priced(one: Figures, replicas: int, price: Price) -> dict[str, float | None]:
    """Return a run's figures with its costs, every server up for the whole span.

    Cost is per million output tokens; ``utilisation`` is the share of that time servers compute.
    """
    tokens, span_s, busy_s = (one.get(name) for name in ("generated_tokens", "span_s", "busy_s"))
    hours = usd = used = None
    if tokens and span_s:
        hours = replicas * price.gpus * span_s / 3600.0 / tokens * 1e6
        usd = None if price.usd_per_gpu_hour is None else hours * price.usd_per_gpu_hour
        used = None if busy_s is None else busy_s / (replicas * span_s)
    return {**one, GPU_HOURS: hours, USD: usd, UTILISATION: used}


@dataclass(frozen=True, slots=True, kw_only=True)
class Costed:
    """A load with its costs: the recorded hour, each resampled one, and their spread."""

    load: Load
    recorded: Figures
    draws: tuple[Figures, ...]
    spread: Mapping[str, Spread | None]

    @classmethod
    def of(cls, load: Load, price: Price) -> Costed:
        """Price every hour of ``load``."""
        draws = tuple(priced(draw, load.replicas, price) for draw in load.draws)
        recorded = priced(load.recorded, load.replicas, price)
        return cls(load=load, recorded=recorded, draws=draws, spread=spreads(draws))

    def to_json(self) -> dict[str, object]:
        """Return the load, its verdict and its figures."""
        figures = {
            name: {"recorded": self.recorded.get(name), "other_hours": found and found.to_json()}
            for name, found in self.spread.items()
            if not name.startswith("caveat.")
        }
        return {
            "replicas": self.load.replicas,
            "rate_per_s": self.load.rate_per_s,
            **self.load.verdict.to_json(),
            "figures": figures,
        }
