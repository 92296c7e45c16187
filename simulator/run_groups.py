"""What the classes and the tenants of a run got, each for itself."""

from __future__ import annotations

from controllers.serving.metrics import Metric, summarise_groups
from simulator.scenario import Run, Scenario


def groups_of(scenario: Scenario, run: Run) -> dict[str, dict[str, dict[str, Metric]]]:
    """Return metrics by class, and by tenant where tenants are not the classes."""
    requests = [arrival.request for arrival in scenario.workload(run.seed).arrivals]
    kinds = {
        "class": {request.request_id: request.task_class for request in requests},
        "tenant": {request.request_id: request.client for request in requests},
    }
    if kinds["tenant"] == kinds["class"]:
        del kinds["tenant"]
    return {
        kind: summarise_groups(
            run.result.ledger,
            group_of,
            step_law=scenario.profile.law,
            ttft_slo_s=scenario.ttft_slo_s,
            tpot_slo_s=scenario.tpot_slo_s,
            warmup_s=scenario.warmup_s,
        )
        for kind, group_of in kinds.items()
    }
