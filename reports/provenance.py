"""Where a page's numbers come from: command, seeds, versions, trace, device, commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.studies.ablation import Ablation
from simulator.scenario import Scenario
from traces.console import commit, package_versions
from traces.provenance import argument_line

LIBRARIES = ("entropic-time", "numpy", "scipy", "simpy", "pyarrow", "matplotlib", "torch")


def provenance(ablation: Ablation) -> dict[str, str]:
    """Return what a reader needs to get an ablation's page again, as labelled lines."""
    return scenario_provenance(ablation.scenario, ablation.seeds)


def scenario_provenance(scenario: Scenario, seeds: Sequence[int]) -> dict[str, str]:
    """Return what a reader needs to get the same runs again, as labelled lines."""
    profile = scenario.profile
    law = ", ".join(f"{name} {value:.4g}" for name, value in profile.step_law.items())
    return {
        "command": argument_line(),
        "seeds": f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0]),
        "trace": f"{scenario.trace.path.name}, sha256 {scenario.trace.sha256}",
        "recorded by": str(scenario.trace.metadata["command"]),
        "model": f"{scenario.trace.metadata['model']}, weights sha256 "
        f"{scenario.trace.metadata['weights_sha256']}",
        "device": f"{profile.device}; {profile.backend}, {profile.dtype}",
        "device measured": f"{profile.created}, commit {profile.commit}",
        "step law": law,
        "limits": ", ".join(f"{name} {n}" for name, n in scenario.limits.to_json().items()),
        "versions": ", ".join(f"{k} {v}" for k, v in package_versions(*LIBRARIES).items()),
        "commit": commit(Path(__file__).parent),
    }
