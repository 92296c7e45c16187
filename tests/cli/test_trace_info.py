from __future__ import annotations

import pytest

from traces.schema import COVERAGES, SCORERS
from traces.store import read_trace


def test_info_json_agrees_with_the_trace(cli, trace_file):
    found = cli.json("trace", "info", trace_file)
    trace = read_trace(trace_file)
    assert found["command"] == "trace info"
    assert found["metrics"]["tokens"] == trace.rows
    groups = found["metrics"]["by_class_and_temperature"]
    assert sum(row["tokens"] for row in groups) == trace.rows
    assert sum(row["requests"] for row in groups) == len(trace.requests)
    weighted = sum(row["h_cal"] * row["tokens"] for row in groups) / trace.rows
    assert weighted == pytest.approx(float(trace.columns["h_cal"].mean()), rel=1e-5)


def test_info_text_has_every_table(cli, trace_file):
    done = cli("trace", "info", trace_file)
    assert done.exit_code == 0
    for words in ("task class", "entropy at T", "lag-1", "share of pages kept", "KL to dense"):
        assert words in done.stdout
    for scorer in SCORERS:
        assert scorer in done.stdout
    for coverage in COVERAGES:
        assert f"p {coverage:g}" in done.stdout
    assert read_trace(trace_file).sha256 in done.stdout
