"""Build the page: run the studies, gather committed results, write figures and HTML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.page import render
from reports.parts import Evidence
from reports.provenance import provenance
from reports.sections import SECTIONS
from reports.studies.ablation import ablate
from reports.studies.load import LOADS, sweep
from reports.style import save
from simulator.scenario import Scenario
from traces.atomic import atomic_path
from traces.console import progress
from traces.info import describe

RESULTS = Path(__file__).parent / "results"
LOAD_SEEDS = 3  # a sweep is a picture of a trend; the ablation has the full number of seeds


def simulate_evidence(
    scenario: Scenario, *, seeds: Sequence[int], jobs: int, quick: bool = False
) -> Evidence:
    """Run the ablation and the load sweep; read what was measured before."""
    with progress("ablation") as update:
        ablation = ablate(scenario, seeds=seeds, jobs=jobs, progress=update)
    with progress("load sweep") as update:
        load = sweep(
            scenario,
            seeds=seeds[: 1 if quick else LOAD_SEEDS],
            loads=LOADS[::3] if quick else LOADS,
            jobs=jobs,
            progress=update,
        )
    return Evidence(
        ablation=ablation,
        load=load,
        trace_info=describe(scenario.trace),
        results=read_results(RESULTS),
    )


def read_results(folder: Path) -> dict[str, Any]:
    """Return every committed measurement by file name; none where the folder is missing."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.name}: must be JSON; {error}") from error
    return found


def build_page(evidence: Evidence, out: Path) -> Path:
    """Write every section's figure and the page into ``out``; return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    parts = [part for section in SECTIONS if (part := section(evidence)) is not None]
    for part in parts:
        if part.figure is not None:
            save(part.figure, out / f"{part.name}.png")
    page = out / "index.html"
    with atomic_path(page) as partial:
        partial.write_text(render(parts, provenance(evidence.ablation)), encoding="utf-8")
    return page
