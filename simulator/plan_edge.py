"""Where the knee of one server and the number of servers seem to disagree: what to make of it.

The knee is found with one server on a ladder of rates, the number of servers at the rate itself.
Near the edge of a level the two may differ by a few per cent, for reasons that a reader must know.
"""

from __future__ import annotations

from simulator.plan import Plan
from simulator.plan_bracket import RUNG
from simulator.plan_search import Answer, Load
from traces.text import number

UNSURE = 2.0  # a knee lower than the recording's by this factor is the interval's


def load_of_knee(answer: Answer) -> float | None:
    """Return what one of the planned servers carries as a share of the knee; None without one."""
    return None if answer.knee is None else _per_server(answer.fewest) / answer.knee.rate_per_s


def edge_lines(plan: Plan) -> list[str]:
    """Return one line per preset and contradiction between its knee and its number of servers."""
    return [f"{row.preset}: {line}" for row in plan.rows for line in contradictions(row.answer)]


def contradictions(answer: Answer) -> list[str]:
    """Say where servers meet the level beyond the knee, or miss it below, and why."""
    lines = _unsure(answer)
    if answer.knee is None or lines:  # an uncertain knee explains what else seems to disagree
        return lines
    knee, fewest, fewer = answer.knee.rate_per_s, answer.fewest, answer.fewer
    if answer.met and answer.above is not None and _per_server(fewest) > knee:
        lines.append(
            f"{_carry(fewest)} beyond the knee of one server, {number(knee, 4)}, and meet the "
            f"level: {_why_more(fewest, answer.above)}"
        )
    missed = fewer if answer.met else fewest
    if missed is not None and _per_server(missed) <= knee:
        lines.append(
            f"{_carry(missed)} within the knee of one server, {number(knee, 4)}, and do not meet "
            f"the level ({missed.verdict.status}): {_why_less(missed)}"
        )
    return lines


def _unsure(answer: Answer) -> list[str]:
    """Say where the spread of resamples, not the load, has set the knee."""
    alone = answer.recorded_knee_per_s
    if alone is None or (answer.knee is not None and UNSURE * answer.knee.rate_per_s >= alone):
        return []
    sure = "at no rate" if answer.knee is None else f"up to {number(answer.knee.rate_per_s, 4)}"
    return [
        f"one server meets the level up to {number(alone, 4)} requests/s on the recording alone, "
        f"and {sure} for sure: the figures of its resamples lie so far apart that their interval "
        "sets the knee, not the load; a longer recording or more --seeds narrow it"
    ]


def _carry(load: Load) -> str:
    return f"{load.replicas} server(s) carry {number(_per_server(load), 4)} requests/s each,"


def _why_more(load: Load, above_per_s: float) -> str:
    if load.replicas == 1 and load.rate_per_s < above_per_s:
        return f"the knee is known to a step of {100 * (RUNG - 1):.0f} %, and this is within one"
    if load.replicas == 1:
        return "near the edge latencies do not rise evenly with the rate; take the knee"
    return "several servers share a burst that one must take alone, so the knee is on the safe side"


def _why_less(load: Load) -> str:
    if load.replicas == 1:
        return "near the edge latencies do not rise evenly with the rate; take the knee with a step"
    return (
        "the router cannot deal bursts and long requests out evenly, so leave more room than the "
        "knee alone suggests"
    )


def _per_server(load: Load) -> float:
    return load.rate_per_s / load.replicas
