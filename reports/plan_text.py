"""A plan as text: the answer and its cost, the quality beside them, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping

from reports.plan_document import pareto, quote_of
from reports.plan_quality import Quoted
from simulator.plan import Plan, Row
from simulator.plan_caveats import plan_notes
from simulator.plan_cost import GPU_HOURS, USD, UTILISATION
from simulator.plan_edge import load_of_knee
from simulator.plan_figures import Spread
from traces.text import number, table

COLDER = (
    "NLL of text drawn at other temperatures: colder text is likelier, which makes it no better; "
    "a lower NLL here is no gain in quality"
)
DIFFERENCES = {  # figure: heading, in per cent of the reference or in its own unit
    "ttft_s.p99": ("TTFT p99, %", True),
    "tpot_s.p95": ("TPOT p95, %", True),
    "e2e_s.mean": ("e2e mean, %", True),
    "busy_s": ("GPU busy, %", True),
    "nll_per_token_nats": ("NLL, nat/token", False),
    "tau_per_token_nats": ("tau, nat/token", False),
}


def plan_text(plan: Plan) -> str:
    """Return the whole report."""
    quotes = {row.preset: quote_of(row) for row in plan.rows}
    parts = [
        _headline(plan),
        _answers(plan),
        "\n".join(_clauses(plan)) + "\n",
        _quality(plan, quotes),
        _differences(plan),
        _front(plan, quotes),
        "\n".join(f"note: {line}" for line in plan_notes(plan)) + "\n",
    ]
    return "\n".join(part for part in parts if part)


def refusal(plan: Plan) -> str | None:
    """Return why no preset meets the level, one line: the binding clause and by how much."""
    if any(row.answer.met for row in plan.rows):
        return None
    row = max(plan.rows, key=lambda one: _slack(one))
    worst = row.answer.fewest.verdict.worst
    return (
        f"the SLO cannot be met with {plan.question.replicas_max} replica(s) at "
        f"{number(plan.question.rate_per_s)} requests/s; nearest is {row.preset}: {worst.line()}"
    )


def _slack(row: Row) -> float:
    found = row.answer.fewest.verdict.worst.slack
    return -float("inf") if found is None else found


def _headline(plan: Plan) -> str:
    profile, question, traffic = plan.setup.scenario.profile, plan.question, plan.setup.arrivals
    blocks = plan.setup.blocks.length
    return (
        f"{profile.model} on {profile.device} ({plan.price.gpus} GPU(s) a replica): fewest "
        f"replicas that meet {question.slo.text} at {number(question.rate_per_s)} requests/s\n"
        f"{traffic.source}: {len(traffic)} requests in {number(float(traffic.times_s[-1]))} s; "
        f"the recording and {question.draws} resamples of it in blocks of {blocks} requests\n"
    )


def _answers(plan: Plan) -> str:
    money = plan.price.usd_per_gpu_hour is not None
    key, unit = (USD, "USD") if money else (GPU_HOURS, "GPU-h")
    header = [
        "preset", "replicas", "binds", "one less", "load, % of knee", "busy, %",
        f"{unit}/M tokens", "knee, req/s", f"at knee, {unit}/M",
    ]  # fmt: skip
    rows = []
    for row in plan.rows:
        answer = row.answer
        decides = answer.fewest if row.fewer is None else row.fewer.load  # what one less fails
        count = str(answer.fewest.replicas) if answer.met else f"> {answer.fewest.replicas}"
        rows.append(
            [
                row.preset,
                count,
                decides.verdict.worst.clause.text,
                "-" if row.fewer is None else row.fewer.load.verdict.status,
                _load(row),
                _shown(row.fewest.spread.get(UTILISATION), scale=100.0),
                _shown(row.fewest.spread.get(key)),
                _knee(row),
                "-" if row.knee is None else _shown(row.knee.spread.get(key)),
            ]
        )
    return "Answer\n" + table(header, rows)


def _load(row: Row) -> str:
    """Return the load of one server as a share of its knee: what is left is headroom."""
    share = load_of_knee(row.answer)
    return "-" if share is None else f"{100 * share:.0f}"


def _knee(row: Row) -> str:
    if row.knee is None:
        return "none"
    if row.answer.above is None:
        return f">= {number(row.knee.load.rate_per_s)}"
    return number(row.knee.load.rate_per_s)


def _clauses(plan: Plan) -> list[str]:
    lines = []
    for row in plan.rows:
        fewest, fewer = row.answer.fewest, row.answer.fewer
        where = f"{row.preset} on {fewest.replicas}"
        lines += [f"{where}: {one.line()}" for one in fewest.verdict.clauses]
        if fewer is not None:
            lines.append(f"{row.preset} on {fewer.replicas}: {fewer.verdict.worst.line()}")
    return lines


def _quality(plan: Plan, quotes: Mapping[str, Quoted | None]) -> str:
    header = (
        "preset", "NLL, nat/token", "tau, nat/token", "KV pages kept, %", "mean coverage",
        "pruning's NLL (quoted)",
    )  # fmt: skip
    rows, planned = [], plan.setup.scenario.profile.model
    for row in plan.rows:
        spread, quote = row.fewest.spread, quotes[row.preset]
        rows.append(
            [
                row.preset,
                _shown(spread.get("nll_per_token_nats")),
                _shown(spread.get("tau_per_token_nats")),
                _shown(spread.get("kv_pages_kept_share"), scale=100.0),
                _shown(spread.get("coverage_mean"), interval=False),
                "no pruning" if quote is None else f"{quote.nll_change_nats:+.3f}",
            ]
        )
    lines = [f"{name}: {one.line(planned)}" for name, one in quotes.items() if one is not None]
    if len({row[1] for row in rows}) > 1:
        lines.append(COLDER)
    return "Quality at that size\n" + table(header, rows) + "".join(f"{line}\n" for line in lines)


def _differences(plan: Plan) -> str:
    others = [row for row in plan.rows if row.against]
    if not others:
        return ""
    reference = plan.reference
    header = ["preset", *(heading for heading, _ in DIFFERENCES.values()), "knee, %"]
    rows = []
    for row in others:
        cells = [row.preset]
        for name, (_, in_pct) in DIFFERENCES.items():
            one, base = row.against[name], reference.alike.spread.get(name)
            scale = 1.0
            if in_pct:
                scale = 100.0 / abs(base.centre) if base is not None and base.centre else 1.0
            mark = "*" if one.told_apart else ""
            cells.append(_shown(one.spread, scale=scale, signed=True) + mark)
        cells.append(_knee_gain(row, reference))
        rows.append(cells)
    title = (
        f"Against {reference.preset} on {reference.alike.load.replicas} replica(s), same traffic; "
        "* the interval excludes 0\n"
    )
    return title + table(header, rows)


def _knee_gain(row: Row, reference: Row) -> str:
    if row.knee is None or reference.knee is None:
        return "-"
    return f"{100 * (row.knee.load.rate_per_s / reference.knee.load.rate_per_s - 1):+.0f}"


def _front(plan: Plan, quotes: Mapping[str, Quoted | None]) -> str:
    points = pareto(plan, quotes)["points"]
    assert isinstance(points, list)
    header = (
        "operating point", "replicas", "req/s", "GPU-h/M tokens", "TTFT p99, s", "NLL (not ranked)",
        "pruning's KL (quoted)", "on the front",
    )  # fmt: skip
    rows = []
    for point in points:
        beaten, values = point["dominated_by"], list(point["values"].values())
        rows.append(
            [
                point["name"],
                str(point["replicas"]),
                number(point["rate_per_s"]),
                *(number(value) for value in values),
                "yes" if beaten is None else f"no: {beaten}",
            ]
        )
    return "Cost, time to first token, distance to dense: who is beaten by whom\n" + table(
        header, rows
    )


def _shown(
    found: Spread | None, *, scale: float = 1.0, interval: bool = True, signed: bool = False
) -> str:
    """Return a centre with its interval in brackets."""
    if found is None:
        return "-"
    edges = [found.centre, found.low, found.high]
    plus = "+" if signed and found.centre * scale > 0 else ""
    centre, low, high = (None if edge is None else number(edge * scale) for edge in edges)
    if not interval or low is None or low == centre == high:
        return f"{plus}{centre}"
    return f"{plus}{centre} [{low}, {high}]"
