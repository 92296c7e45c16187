from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from controllers.presets import PRESETS
from reports import build
from reports.build import RESULTS, build_page, read_results
from reports.committed import STABILITY_COLUMNS, parity, stability
from reports.notes import INTERVALS, footer, matched_verdict
from reports.page import render
from reports.parts import Part
from reports.results_html import result_html
from reports.sections import SECTIONS
from reports.tables import (
    ABLATION_COLUMNS,
    MATCHED_HEADS,
    PAGE_COLUMNS,
    ablation_grid,
    html_table,
    matched_grid,
)
from simulator.caveats import IDEAL_KERNEL


@pytest.fixture(scope="module")
def page(evidence, tmp_path_factory):
    return build_page(evidence, tmp_path_factory.mktemp("site") / "out")


def test_every_link_of_the_page_leads_somewhere(page):
    html = page.read_text()
    pictures = re.findall(r'src="([^"]+)"', html)
    assert len(pictures) == 5
    for picture in pictures:
        assert (page.parent / picture).stat().st_size > 5_000
    for anchor in re.findall(r'href="#([^"]+)"', html):
        assert f'id="{anchor}"' in html


def test_the_page_needs_nothing_from_outside(page):
    html = page.read_text()
    assert "http" not in html.replace('lang="en"', "")
    assert "<script" not in html
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"index.html", *re.findall(r'src="([^"]+)"', html)}


def test_the_page_says_where_its_numbers_come_from(page, ablation):
    html = page.read_text()
    for words in (ablation.scenario.trace.sha256, "made up for a test", "seeds", "commit"):
        assert words in html
    for preset in PRESETS:
        assert f"<th>{preset}</th>" in html


def test_a_section_without_evidence_is_left_out(evidence):
    names = {part.name for section in SECTIONS if (part := section(evidence)) is not None}
    assert "latency_load" in names
    assert not names & {"live", "parity", "stability"}
    bare = replace(evidence, load=None)
    assert "latency_load" not in {p.name for s in SECTIONS if (p := s(bare)) is not None}


def test_committed_results_get_their_section(evidence, tmp_path):
    (tmp_path / "parity.json").write_text(
        json.dumps({"holds": True, "rows": [{"steps": 2001, "differ": 0}], "by": {"x": 0.125}})
    )
    found = replace(evidence, results=read_results(tmp_path))
    part = next(p for s in SECTIONS if (p := s(found)) is not None and p.name == "parity")
    for words in ("2001", "holds: True", "by.x: 0.125"):
        assert words in part.html


def test_committed_parity_is_a_table_of_what_differed(evidence):
    part = parity(replace(evidence, results=read_results(RESULTS)))
    assert part is not None
    for words in ("2,172", "0 differ", "max 0.0089 nat", "133 preemptions"):
        assert words in part.html


def test_the_committed_stability_study_gets_its_table_and_figure(evidence):
    def row(preset: str) -> dict[str, object]:
        seeds = [
            {"seed": i, **{name: 0.25 + i for _, _, name, _ in STABILITY_COLUMNS}} for i in range(2)
        ]
        bands = [[float(q), float(q) + 0.5] for q in range(1, 6)]
        return {
            "preset": preset,
            "target_nats": 1.0,
            "requests": 18,
            "seeds": seeds,
            "temperature_quantiles": bands,
            "entropy_quantiles": bands,
        }

    document = {
        "model": "tiny",
        "seeds": [0, 1],
        "max_tokens": 2,
        "user_temperature": 0.8,
        "rows": [row("baseline"), row("seed")],
    }
    part = stability(replace(evidence, results={"stability": document}))
    assert part is not None
    assert part.figure is not None
    assert "0.750" in part.html  # the mean of .25 and 1.25


def test_a_broken_result_file_is_named(tmp_path):
    (tmp_path / "parity.json").write_text("{")
    with pytest.raises(ValueError, match=r"parity\.json"):
        read_results(tmp_path)
    assert read_results(tmp_path / "absent") == {}


def test_the_committed_results_can_be_shown():
    for value in read_results(build.RESULTS).values():
        assert result_html(value)


def test_text_from_outside_is_escaped():
    part = Part(name="x", title="<script>", html=result_html({"<b>": "</ul>"}))
    html = render([part], {"a<b": "c&d"})
    assert "<script>" not in html
    assert "&lt;b&gt;: &lt;/ul&gt;" in html
    assert "c&amp;d" in html


def test_terminal_and_page_show_the_same_cells(ablation):
    grid = ablation_grid(ablation)
    assert len(grid.rows) == len(PRESETS)
    assert all(len(row) == len(ABLATION_COLUMNS) + 1 for row in grid.rows)
    html = html_table(grid, "caption")
    for row in grid.rows:
        for cell in row:
            assert cell.marked in html
            assert cell.half in html


def test_a_mark_means_that_the_pairs_differ(ablation):
    grid = ablation_grid(ablation)
    column = 1 + [c.metric for c in ABLATION_COLUMNS].index("kv_bytes_read_per_token")
    marks = {row[0].text: row[column].differs for row in grid.rows}
    assert marks["attention"]
    assert not marks["baseline"]
    assert not marks["sampling"]


def test_the_footer_holds_the_caveats(ablation):
    text = " ".join(footer(ablation))
    for words in ("seeds 0-1", "8 requests", "exogenous", "NOT the planned", "requests queue"):
        assert words in text
    assert INTERVALS in text
    assert "not applied" in text
    assert "baseline 0," in text


def test_the_page_says_that_sparse_speed_is_an_ideal_kernels(evidence):
    parts = {part.name: part for section in SECTIONS if (part := section(evidence)) is not None}
    for name in ("differences", "latency_load"):
        assert IDEAL_KERNEL in parts[name].caption
    assert IDEAL_KERNEL[1:] in " ".join(footer(evidence.ablation))


def test_the_matched_table_has_a_line_per_preset(ablation):
    grid = matched_grid(ablation)
    assert [row[0].text for row in grid.rows] == list(PRESETS)
    assert all(len(row) == len(MATCHED_HEADS) for row in grid.rows)
    for row, found in zip(grid.rows, ablation.rows, strict=True):
        assert row[6].differs == found.matched.nll_difference.excludes_zero


def test_the_verdict_names_each_temperature_law_once(ablation):
    text = matched_verdict(ablation)
    assert "seed is worse in likelihood" in text
    for law in ("sampling", "seed", "best"):
        assert text.count(f"{law} is ") == 1
    for carried in ("baseline is", "scheduling is", "attention is", "full is"):
        assert carried not in text


def test_a_page_shows_more_columns_than_a_terminal():
    assert PAGE_COLUMNS[: len(ABLATION_COLUMNS)] == ABLATION_COLUMNS
