"""Parity over a fresh live run on the real model (slow)."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.models import load
from controllers.serving.runlog import read_log
from reports.studies.parity import check
from reports.studies.parity_run import run, stress
from traces.store import read_trace


@pytest.mark.slow
def test_a_fresh_live_run_of_two_thousand_steps_replays_exactly(tmp_path: Path) -> None:
    log, trace = tmp_path / "log.jsonl.gz", tmp_path / "trace.parquet"
    provenance = {"command": "test", "versions": {}}
    run(
        load(),
        stress("full"),
        log,
        trace,
        n_requests=36,
        max_tokens=200,
        seed=7,
        provenance=provenance,
        min_steps=2000,
    )
    found = check(read_log(log), read_trace(trace))
    assert found.events["requests"] >= 32
    assert all(count > 0 for count in found.events.values()), found.events
    assert found.holds
