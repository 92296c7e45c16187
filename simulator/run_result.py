"""What a simulation leaves behind: ledgers, metrics, caveats and the bill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.serving.ledger import Ledger
from controllers.serving.metrics import Metric, summarise
from controllers.temperature import X_MAX, X_MIN
from simulator.arrival import ArrivalTable
from simulator.cluster import Cluster
from simulator.cluster_fleet import Fleet
from simulator.cluster_modes import Mode
from simulator.cluster_usage import Usage, spending, usage
from simulator.merge import front_ledger, lost_tokens, merged
from simulator.model import TraceModel
from simulator.residual import Residual
from simulator.server import REJECTED
from simulator.workload import Workload

if TYPE_CHECKING:
    from simulator.run import ClusterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a run left behind."""

    ledgers: tuple[Ledger, ...]  # one per server, in order of start; a recovered one is another
    ledger: Ledger  # the cluster's, in one piece; one row per request
    metrics: Mapping[str, Metric]  # of the whole cluster
    caveats: Mapping[str, int]  # how often the recording had to be stretched, by name
    mode: Mode = "online"  # what ran; all modes leave the same ledger
    mode_reason: str = ""
    usage: tuple[Usage, ...] = ()  # one per group

    def to_json(self) -> str:
        """Return metrics and caveats as one line; equal runs give equal bytes."""
        found = {"metrics": dict(self.metrics), "caveats": dict(self.caveats)}
        return json.dumps(found, sort_keys=True, allow_nan=False)


def result_of(
    model: TraceModel,
    residual: Residual,
    workload: Workload,
    config: ClusterConfig,
    cluster: Cluster,
    fleet: Fleet,
    mode: tuple[Mode, str],
) -> SimulationResult:
    """Gather what a finished run left; ``mode`` is what ran and why."""
    ledgers = tuple(member.server.ledger for member in fleet.members)
    parts = ledgers
    if cluster.front:
        parts = (front_ledger(cluster.front, workload, ledgers[0]), *ledgers)
    whole = merged(parts) if len(parts) > 1 or fleet.crashes else ledgers[0]
    used = usage(fleet)
    pools = {member.limits.n_pages for member in fleet.members}
    metrics = summarise(
        whole,
        step_law=config.step_law,
        bytes_per_page_unit=config.bytes_per_page_unit,
        page_tokens=config.limits.page_tokens,
        ttft_slo_s=config.ttft_slo_s,
        tpot_slo_s=config.tpot_slo_s,
        x_min=X_MIN,
        x_max=X_MAX,
        warmup_s=config.warmup_s,
        n_pages=pools.pop() if len(pools) == 1 else None,
        spent=spending(used),
        **asked_of(workload),
    )
    fates = {
        "rejected": whole.reasons.count(REJECTED),
        "retries": cluster.retries,
        "lost_tokens": lost_tokens(ledgers),
        "crashes": fleet.crashes,
    }
    clamped = sum(member.server.clamped_rows for member in fleet.members)
    return SimulationResult(
        ledgers=ledgers,
        ledger=whole,
        metrics={**metrics, **fates},
        caveats={
            **_caveats(model, workload),
            "rows_below_lowest_coverage": clamped,
            "residual_samples": residual.samples,
        },
        mode=mode[0],
        mode_reason=mode[1],
        usage=used,
    )


def asked_of(workload: Workload) -> dict[str, Any]:
    """Return clients and ranks by request id, each only where requests differ in it."""
    arrivals = workload.arrivals
    if isinstance(arrivals, ArrivalTable):
        codes = arrivals.columns.client
        several = len(codes) > 0 and bool((codes != codes[0]).any())
        names = [str(code) for code in range(int(codes.max()) + 1)] if several else []
        tenants = {i: names[code] for i, code in enumerate(codes.tolist())} if several else None
        return {"tenants": tenants, "ranks": _table_ranks(arrivals)}
    clients = {arrival.request.request_id: arrival.request.client for arrival in arrivals}
    ranks = {arrival.request.request_id: arrival.request.priority for arrival in arrivals}
    return {
        "tenants": clients if len(set(clients.values())) > 1 else None,
        "ranks": ranks if len(set(ranks.values())) > 1 else None,
    }


def _table_ranks(arrivals: ArrivalTable) -> dict[int, int] | None:
    """Return the rank of each request by id, which its template has; None where all are alike."""
    used = arrivals.columns.trace_index.tolist()
    rank = {index: arrivals.templates[index].priority for index in set(used)}
    if len(set(rank.values())) < 2:
        return None
    return {request_id: rank[index] for request_id, index in enumerate(used)}


def true_tokens(model: TraceModel, workload: Workload) -> dict[int, int]:
    """Output length of each request, tokens, by id: what an oracle law may read."""
    _, wanted = _lengths(model, workload)
    tokens = np.minimum(wanted, workload.column("max_tokens"))
    return dict(zip(workload.column("request_id").tolist(), tokens.tolist(), strict=True))


def _lengths(model: TraceModel, workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return the recorded and the true output length of every request, tokens."""
    first, past = model.slices[workload.column("trace_index")].T
    recorded, stated = past - first, workload.column("output_tokens")
    return recorded, np.where(stated < 0, recorded, stated)


def _caveats(model: TraceModel, workload: Workload) -> dict[str, int]:
    recorded, wanted = _lengths(model, workload)
    allowed, index = workload.column("max_tokens"), workload.column("trace_index")
    stretched = np.maximum(np.minimum(wanted, allowed) - recorded, 0)
    cut = (wanted == recorded) & ~model.ends_itself[index]
    return {
        "bootstrapped_tokens": int(stretched.sum()),
        "recordings_cut_short": int(cut.sum()),  # by the recorder: the model would have gone on
        "recordings_reused": len(index) - len(np.unique(index)),
        "recordings_empty": workload.empty_recordings,
    }
