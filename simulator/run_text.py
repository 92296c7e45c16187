"""A simulated run as text: who asked for what, latencies, totals, and what the numbers rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from simulator.caveats import caveat_lines
from traces.text import number, table

if TYPE_CHECKING:
    from controllers.serving.metrics import Metric
    from simulator.scenario import Run, Scenario

LATENCIES = {
    "time to first token, s": "ttft_s",
    "time per output token, s": "tpot_s",
    "inter-token latency, s": "itl_s",
    "end to end, s": "e2e_s",
}
TOTALS = {
    "throughput, tokens/s": "throughput_tokens_per_s",
    "throughput, requests/s": "throughput_requests_per_s",
    "goodput, requests/s": "goodput_requests_per_s",
    "KV pages kept, share": "kv_pages_kept_share",
    "decode KV read, bytes": "kv_bytes_read",
    "tau at the applied T, nats": "tau_nats",
    "tau at T_cal, nats": "tau_cal_nats",
    "net entropy change, nats": "entropy_net_nats",
    "negative log-likelihood at T = 1, nats": "nll_nats",
    "T on a clip, share of tokens": "clip_share",
    "modelled cost, s": "cost_s",
    "utilisation, share": "utilisation",
    "paid for, GPU-seconds": "gpu_seconds",
    "price, USD": "usd",
    "energy, J": "energy_j",
    "preemptions": "preemptions",
    "longest service gap, steps": "max_service_gap_steps",
    "Jain fairness index": "jain",
    "requests completed": "completed",
}


def report(scenario: Scenario, done: Run) -> str:
    """Return a run as text: latencies, totals, then what the numbers rest on."""
    return "\n".join(
        (
            f"preset {done.preset}, seed {done.seed}: {scenario.n_requests} requests "
            f"{_asked(scenario)} on {_servers(scenario)}\n",
            _latencies(done.metrics),
            _totals(done.metrics),
            *(f"note: {line}" for line in [*_closed_loop(scenario), *caveat_lines(scenario, done)]),
            "",
        )
    )


def _asked(scenario: Scenario) -> str:
    sessions = scenario.sessions
    if sessions is None:
        return f"at {number(scenario.rate_per_s)}/s"
    return (
        f"of {sessions.users} users in a closed loop ({sessions.turns:g} turns and "
        f"{sessions.think_s:g} s of thought on average)"
    )


def _closed_loop(scenario: Scenario) -> list[str]:
    sessions = scenario.sessions
    if sessions is None:
        return []
    return [
        f"each user makes {sessions.requests_per_user} requests: the load falls as the first ones "
        "are through, so rates are lower bounds of those under all users",
        f"texts of users have {sessions.new_text.mean:g} tokens on average and answers "
        f"{sessions.answer.mean:g}; a conversation ends at {sessions.max_total} tokens",
    ]


def _servers(scenario: Scenario) -> str:
    if scenario.cluster is None:
        return f"{scenario.replicas} replica(s)"
    groups = (f"{one.count} {one.name}" for one in scenario.cluster.groups)
    return f"{' + '.join(groups)} of the topology"


def _latencies(metrics: Mapping[str, Metric]) -> str:
    stats = ("mean", "p50", "p95", "p99")
    rows = []
    for label, name in LATENCIES.items():
        found = metrics[name]
        values = [found[stat] if isinstance(found, dict) else None for stat in stats]
        rows.append([label, *(number(value) for value in values)])
    return table(("latency", *stats), rows)


def _totals(metrics: Mapping[str, Metric]) -> str:
    rows = []
    for label, name in TOTALS.items():
        value = metrics[name]
        assert not isinstance(value, dict)
        rows.append([label, number(value, 4)])
    return table(("total", "value"), rows)
