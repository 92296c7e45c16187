"""The page of a simulation: its numbers are the runs', and it needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import re
import xml.etree.ElementTree as ET
from html import escape

import numpy as np
import pytest

from controllers.presets import get_preset
from reports.figures.simulation_time import binned_mean, over_time
from reports.figures.simulation_tokens import along_the_text, by_position
from reports.simulation_build import simulation_evidence
from reports.simulation_page import (
    SimulationEvidence,
    headline,
    simulation_page,
    verdicts,
    worst,
    worst_request,
    write_simulation_page,
)
from reports.simulation_parts import SPARE, colours
from reports.style import COLOURS
from simulator.decisions import collected, kept_by
from simulator.scenario import run
from tests.reports.html_tables import tables

PRESETS = ("baseline", "full")


@pytest.fixture(scope="module")
def logs(scenario):
    return {name: [] for name in PRESETS}


@pytest.fixture(scope="module")
def runs(scenario, logs):
    found = []
    for name in PRESETS:
        preset = get_preset(name)
        told = collected(logs[name], kept=kept_by(scenario, preset, 1))
        found.append(run(scenario, preset, 1, witnesses=told))
    return found


@pytest.fixture(scope="module")
def evidence(scenario, runs, logs) -> SimulationEvidence:
    return simulation_evidence(scenario, runs, decisions=logs)


@pytest.fixture(scope="module")
def html(evidence):
    return simulation_page(evidence)


def cell(html: str, line: str, column: int) -> str:
    """Return a cell of the headline table, small print cut off."""
    rows = [row for row in tables(html)[0] if row[0].split("|")[0].strip() == line]
    assert rows, line
    return rows[0][column].split("|")[0].strip()


def test_the_page_is_one_file_with_nothing_from_outside(html, evidence, tmp_path):
    path = write_simulation_page(tmp_path / "page.html", evidence)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text() == html  # equal evidence, equal bytes
    assert "<script" not in html
    assert "http" not in html
    sources = re.findall(r'src="([^"]+)"', html)
    assert len(sources) == 3
    for source in sources:
        head, data = source.split(",")
        assert head == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_the_headline_shows_what_the_metrics_say(html, evidence):
    for column, one in enumerate(evidence.shown, start=1):
        ttft, tpot = one.metrics["ttft_s"], one.metrics["tpot_s"]
        assert cell(html, "time to first token, mean", column) == f"{ttft['mean']:#.3g}"
        assert float(cell(html, "time per output token, p95", column)) == pytest.approx(
            1e3 * tpot["p95"], rel=5e-3
        )
        share = float(cell(html, "KV pages that decode reads", column))
        assert share == pytest.approx(100 * one.metrics["kv_pages_kept_share"], rel=5e-3)
        assert cell(html, "completed", column) == str(one.metrics["completed"])
        assert cell(html, "negative log-likelihood at T = 1", column) != "-"


def test_every_saving_has_a_quality_figure_beside_it(html):
    topics = [row[0] for row in tables(html)[0] if len(row) > 1 and row[1] == PRESETS[0]]
    assert topics == ["time", "quality", "resources", "fairness", "requests"]


def test_differences_are_to_the_first_run(html, evidence):
    (line,) = [row for row in tables(html)[0] if row[0].startswith("KV bytes read")]
    first, second = (one.metrics["kv_bytes_read"] for one in evidence.shown)
    assert line[2].split("|")[1] == f"{100 * (second - first) / first:+.1f} %"
    assert "|" not in line[1]


def test_classes_add_up_to_the_whole(html, evidence):
    (by_class,) = [table for table in tables(html) if table[0][0].startswith("class")]
    place = [head.split("|")[0] for head in by_class[0]].index("completed")
    for one in evidence.shown:
        rows = [row for row in by_class[1:] if row[0].endswith(f"· {one.name}")]
        shown = sum(int(row[place].replace(",", "").split("|")[0]) for row in rows)
        assert shown == one.metrics["completed"]


def test_verdicts_and_caveats_are_on_the_page(html, evidence):
    for one in evidence.shown:
        assert set(one.verdicts) == {"stability", "starvation"}
        assert one.verdicts["stability"].split(":")[0] in html
        for line in one.caveats:
            assert escape(line) in html
    assert any("is not the planned model" in line for line in evidence.shown[0].caveats)
    assert evidence.config["trace_sha256"] in html


def test_the_slowest_request_is_explained(html, evidence):
    for one in evidence.shown:
        requests = one.ledger.requests
        waits = requests["first_token_ns"] - requests["arrival_ns"]
        slowest = worst_request(one)
        assert waits[requests["request_id"] == slowest] == waits.max()
        assert f"<li>request {slowest} (" in html
    assert "let in: rank" in html


def test_a_page_without_logs_or_rows_leaves_those_parts_out(scenario):
    bare = dataclasses.replace(scenario, record=False)
    found = run(bare, get_preset("full"), 1)
    page = simulation_page(simulation_evidence(bare, [found]))
    assert 'id="worst"' not in page
    assert 'id="text"' not in page
    assert 'id="timeline"' in page
    assert "Simulation of full" in page


def test_names_are_escaped_and_must_differ(evidence):
    first = dataclasses.replace(evidence.shown[0], name="<b>")
    other = dataclasses.replace(evidence, shown=(first,))
    for section in (headline, verdicts, worst):
        assert "<b>" not in section(other).html
        assert "&lt;b&gt;" in section(other).html
    with pytest.raises(ValueError, match="names of runs must be distinct"):
        dataclasses.replace(evidence, shown=(first, first))
    with pytest.raises(ValueError, match="a page needs a run"):
        dataclasses.replace(evidence, shown=())


def test_a_page_has_to_end_in_html_and_lie_somewhere(evidence, tmp_path):
    with pytest.raises(ValueError, match="must end in"):
        write_simulation_page(tmp_path / "page.pdf", evidence)
    with pytest.raises(ValueError, match="existing folder"):
        write_simulation_page(tmp_path / "absent" / "page.html", evidence)


def test_kept_shares_in_the_log_give_the_pages_the_ledger_counted(scenario, runs, logs):
    model = scenario.model
    units, size = model.layers * model.kv_heads, model.page_tokens
    steps = runs[1].result.ledgers[0].steps
    ran = [row for row in logs["full"] if row["kind"] == "decision" and row["rows"]]
    sparse = 0
    for row, read in zip(ran, steps["page_units_read"].tolist(), strict=True):
        counted = 0
        for _, _, start, n_tokens, coverage, reads, _, *share in row["rows"]:
            if n_tokens == 1 and reads != "prompt":
                part = share[0] if share else 1.0
                counted += round(part * -(-(start + 1) // size) * units)
                sparse += coverage < 1.0
        assert counted == read
    assert sparse > 0


def test_a_binned_mean_keeps_the_area_under_a_step_function():
    times, values = np.array([2, 5, 5, 9]), np.array([4.0, 7.0, 1.0, 0.0])
    every = np.concatenate([np.zeros(2), np.full(3, 4.0), np.full(4, 1.0), np.zeros(3)])
    for bins in (1, 3, 4, 12):
        edges = np.linspace(0, 12, bins + 1)
        expected = every.reshape(bins, -1).mean(axis=1)
        assert binned_mean(times, values, edges) == pytest.approx(expected)
    assert binned_mean(times[:0], values[:0], np.arange(3.0)) == pytest.approx([0, 0])


def test_the_area_under_requests_in_service_is_their_time_in_service(evidence):
    figure = over_time(evidence)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    panels = {"Requests waiting for their first step": ("arrival_ns", "first_scheduled_ns")}
    panels["Requests in service"] = ("first_scheduled_ns", "finish_ns")
    for title, (begin, end) in panels.items():
        axis = figure.axes[titles.index(title)]
        assert axis.get_ylim()[0] == 0.0
        for patch, one in zip(axis.patches, evidence.shown, strict=True):
            values, edges, _ = patch.get_data()
            requests = one.ledger.requests
            spent_s = (requests[end] - requests[begin]).sum() / 1e9
            assert (values * np.diff(edges)).sum() == pytest.approx(spent_s)


def test_pages_held_are_a_share_only_where_the_pool_is_known(evidence):
    def panel(found: SimulationEvidence):
        axes = over_time(found).axes
        return next(axis for axis in axes if axis.get_title(loc="left") == "KV pages held")

    shown = evidence.shown
    unknown = tuple(dataclasses.replace(one, pages=None) for one in shown)
    share, pages = panel(evidence), panel(dataclasses.replace(evidence, shown=unknown))
    assert (share.get_ylabel(), pages.get_ylabel()) == ("% of the pool", "pages")
    for one, a, b in zip(shown, share.patches, pages.patches, strict=True):
        assert a.get_data()[0] == pytest.approx(100 / one.pages * b.get_data()[0])
        steps = one.ledger.steps
        area = (b.get_data()[0] * np.diff(b.get_data()[1])).sum()
        assert area == pytest.approx((steps["pages_held"] * steps["duration_ns"]).sum() / 1e9)


def test_lines_along_the_text_are_quartiles_by_position(evidence):
    ledger = evidence.shown[1].ledger
    where, figures = by_position(ledger, "h_applied")
    positions, values = ledger.tokens["position"], ledger.tokens["h_applied"]
    for at, (low, middle, high, mean) in zip(where, figures.T, strict=True):
        here = values[positions == int(at)]
        assert (low, middle, high) == pytest.approx(tuple(np.percentile(here, (25, 50, 75))))
        assert mean == pytest.approx(here.mean(), rel=1e-5)
    assert along_the_text(evidence) is not None


def test_presets_keep_their_colours_and_others_get_free_ones():
    found = colours(("full", "mine", "best", "other"))
    assert found["full"] == COLOURS["full"]
    assert len(set(found.values())) == 4
    assert set(found.values()) <= {*COLOURS.values(), *SPARE}
