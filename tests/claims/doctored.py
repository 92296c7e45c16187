"""The recorded evidence, and ways to doctor it so that a judge must rule otherwise."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from controllers.serving.ledger import Ledger
from reports.claims.context import Context
from reports.claims.serve import Served
from reports.statistics import Interval
from simulator.defaults import PROFILE, TRACE
from simulator.scenario import build
from traces.profile import read_profile
from traces.store import read_trace


@functools.cache
def recorded() -> Context:
    return Context(build(read_trace(TRACE), read_profile(PROFILE)), (0, 1, 2))


def with_columns(**columns: np.ndarray) -> Context:
    """Replace columns of the trace; what was derived from them is not derived again."""
    context = recorded()
    trace = dataclasses.replace(context.trace, columns={**context.trace.columns, **columns})
    return dataclasses.replace(context, scenario=dataclasses.replace(context.scenario, trace=trace))


def with_entropy(h_cal: np.ndarray) -> Context:
    context = recorded()
    model = dataclasses.replace(context.model, h_cal=h_cal)
    return dataclasses.replace(context, scenario=dataclasses.replace(context.scenario, model=model))


def with_step_law(**seconds: float) -> Context:
    context = recorded()
    profile = context.scenario.profile
    step_law = {**dict(profile.step_law), **seconds}
    profile = dataclasses.replace(profile, step_law=step_law)
    return dataclasses.replace(
        context, scenario=dataclasses.replace(context.scenario, profile=profile)
    )


def with_served(**cached: Any) -> Context:
    """Put simulations that never ran where the context keeps its own."""
    context = dataclasses.replace(recorded())
    vars(context).update(cached)
    return context


def served(
    per_token: dict[str, float] | None = None, ledger: Ledger | None = None, **metrics: float
) -> Served:
    """Three seeds that differ by a thousandth, the same way for every preset."""
    flats = tuple(
        {name: value * (1 + 1e-3 * i) for name, value in metrics.items()} for i in (0, 1, 2)
    )
    pct = {name: Interval(value, 0.1) for name, value in (per_token or {}).items()}
    return Served(metrics=flats, first=ledger or Ledger(), per_token_pct=pct)


def ledger(entropies: list[float], pages: int = 10) -> Ledger:
    """One step that held ``pages``, one request with these entropies."""
    made = Ledger()
    made.ran(*(pages if name == "pages_held" else 0 for name in made.steps.columns))
    for position, h in enumerate(entropies):
        row = {"position": position, "h_cal": h, "h_applied": h}
        made.tokens.append(*(row.get(name, 0) for name in made.tokens.columns))
    return made
