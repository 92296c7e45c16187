"""From a scenario and a file of arrivals to what the simulations of a plan share."""

from __future__ import annotations

import math
from dataclasses import replace

from controllers.core import require
from simulator.bootstrap import choose_blocks
from simulator.plan_point import Setup
from simulator.scenario import Scenario
from traces.arrivals import Arrivals, first


def prepare(
    scenario: Scenario,
    arrivals: Arrivals,
    *,
    requests: int | None = None,
    rate: float | None = None,
    block_s: float | None = None,
    seed: int = 0,
    percentiles: tuple[float, ...] = (),
) -> Setup:
    """Return the setup of a plan for ``arrivals`` (their first ``requests``), at ``rate``.

    ``ValueError`` where the arrivals have no lengths or no span to resample. Prompts that begin
    alike are not shared: a resampled hour repeats requests, and their hits would be made up.
    """
    if arrivals.output_tokens is None or arrivals.prompt_tokens is None:
        raise ValueError(f"a plan needs arrivals with lengths; {arrivals.source} has none")
    if requests is not None:
        require(requests >= 2, "requests must be >= 2", requests=requests)
        arrivals = first(arrivals, requests)
    require_span(arrivals)
    blocks = choose_blocks(arrivals, block_s=block_s)
    ready = replace(
        scenario,
        arrivals=arrivals,
        lengths="arrivals",
        n_requests=len(arrivals),
        rate_per_s=arrivals.rate_per_s if rate is None else rate,
        record=False,
        share_prefixes=False,
    )
    return Setup(
        scenario=ready, arrivals=arrivals, blocks=blocks, seed=seed, percentiles=percentiles
    )


def require_span(arrivals: Arrivals) -> None:
    """Raise ``ValueError`` for arrivals that have no rate: one alone, or all at once."""
    if not math.isfinite(arrivals.rate_per_s):
        raise ValueError(
            f"arrivals must span time; {arrivals.source} has {len(arrivals)} "
            "arrival(s), all at the same instant"
        )
