"""A plan as one JSON document: answers, intervals, quality beside savings, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping

from controllers.presets import get_preset
from reports.plan_quality import Quoted, quoted
from simulator.pareto import Candidate, front
from simulator.plan import Plan, Row
from simulator.plan_bracket import RUNG
from simulator.plan_caveats import plan_notes
from simulator.plan_cost import GPU_HOURS, Costed
from simulator.plan_edge import load_of_knee

PRUNING = "pruning_kl_nats"  # quoted distance to dense attention; 0 where nothing is pruned
OBJECTIVES = (GPU_HOURS, "ttft_s.p99", PRUNING)
SHOWN = "nll_per_token_nats"  # beside them, not ranked: it falls with temperature


def plan_document(plan: Plan) -> dict[str, object]:
    """Return the plan as JSON values; equal plans give equal bytes."""
    quotes = {row.preset: quote_of(row) for row in plan.rows}
    return {
        "config": _config(plan),
        "rows": [_row(row, quotes[row.preset]) for row in plan.rows],
        "pareto": pareto(plan, quotes),
        "notes": plan_notes(plan),
    }


def quote_of(row: Row) -> Quoted | None:
    """Return what was measured at the mean coverage that a preset asks for."""
    found = row.fewest.spread.get("coverage_mean")
    return quoted(None if found is None else found.centre)


def pareto(plan: Plan, quotes: Mapping[str, Quoted | None]) -> dict[str, object]:
    """Return every preset at the planned rate and at its knee, and who dominates it."""
    points: dict[str, Costed] = {}
    for row in plan.rows:
        if row.answer.met:
            points[f"{row.preset} as planned"] = row.fewest
        if row.knee is not None:
            points[f"{row.preset} at its knee"] = row.knee
    candidates = [
        Candidate(name=name, hours=tuple({**hour, PRUNING: _kl(quotes, one)} for hour in one.draws))
        for name, one in points.items()
    ]
    beaten = front(candidates, OBJECTIVES)
    return {
        "objectives": OBJECTIVES,
        "points": [
            {
                "name": name,
                "preset": one.load.preset,
                "replicas": one.load.replicas,
                "rate_per_s": one.load.rate_per_s,
                "values": {
                    **{key: _centre(one, key) for key in OBJECTIVES if key != PRUNING},
                    SHOWN: _centre(one, SHOWN),
                    PRUNING: _kl(quotes, one),
                },
                "dominated_by": beaten[name],
            }
            for name, one in points.items()
        ],
    }


def _config(plan: Plan) -> dict[str, object]:
    setup, question = plan.setup, plan.question
    traffic = setup.arrivals
    return {
        **{k: v for k, v in setup.scenario.to_json().items() if k != "replicas"},
        "slo": question.slo.text,
        "presets": {row.preset: get_preset(row.preset).fingerprints() for row in plan.rows},
        "arrivals": traffic.source,
        "requests": len(traffic),
        "recorded_rate_per_s": traffic.rate_per_s,
        "resampled_hours": question.draws,
        "block_requests": setup.blocks.length,
        "block_reason": setup.blocks.reason,
        "replicas_max": question.replicas_max,
        "gpus_per_replica": plan.price.gpus,
        "usd_per_gpu_hour": plan.price.usd_per_gpu_hour,
        "knee_resolution": RUNG - 1.0,
        "reference": plan.reference.preset,
    }


def _row(row: Row, quote: Quoted | None) -> dict[str, object]:
    answer = row.answer
    return {
        "preset": row.preset,
        "met": answer.met,
        "replicas": answer.fewest.replicas if answer.met else None,
        "fewest": row.fewest.to_json(),
        "one_less": None if row.fewer is None else row.fewer.to_json(),
        "knee": None if row.knee is None else row.knee.to_json(),
        "knee_fails_at_per_s": answer.above,
        "load_of_knee": load_of_knee(answer),
        "alike": row.alike.to_json(),
        "against_reference": {name: one.to_json() for name, one in row.against.items()},
        "pruning_measured": None if quote is None else quote.to_json(),
    }


def _kl(quotes: Mapping[str, Quoted | None], one: Costed) -> float:
    quote = quotes[one.load.preset]
    return 0.0 if quote is None else quote.kl_nats


def _centre(one: Costed, name: str) -> float | None:
    found = one.spread.get(name)
    return None if found is None else found.centre
