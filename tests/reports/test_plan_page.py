"""The page of a plan shows the document's answers, and nothing else is needed to make it."""

from __future__ import annotations

import copy
import re

import pytest

from reports.figures.plan import cost_against_quality, knees, level_held
from reports.plan_page import plan_page, write_plan_page
from tests.reports.html_tables import tables
from tests.reports.plans import plan_of


@pytest.fixture(scope="module")
def html():
    return plan_page(plan_of())


def test_the_answer_is_the_documents(html):
    answer = tables(html)[0]
    by_name = {row[0]: [cell.split("|")[0] for cell in row] for row in answer[1:]}
    assert by_name["baseline"][1:3] == [
        "3",
        "tpot_p95<40ms",
    ]  # .020 + 10 % of .04 s is closer than .6 of 1.5
    assert by_name["attention"][1] == "2"
    assert by_name["seed"][1] == "not with 8"
    assert by_name["seed"][-2:] == ["-", "-"]  # no knee, no cost there
    assert by_name["baseline"][5] == "0.300"
    assert "USD/M tokens" in answer[0][5]


def test_every_saving_has_its_quality_and_its_interval(html):
    (quality,) = [table for table in tables(html) if "pruning's NLL" in table[0][-1]]
    rows = {row[0]: row for row in quality[1:]}
    assert rows["baseline"][-1].split("|")[0] == "no pruning"
    assert rows["attention"][-1].split("|")[0] == "+0.013 ± 0.014"
    assert rows["attention"][1] == "1.50|[1.35, 1.65]"
    assert "SmolLM2-135M-Instruct" in html


def test_differences_are_marked_where_they_are_told_apart(html):
    (against,) = [table for table in tables(html) if len(table[0]) == 3]
    assert [row[0] for row in against[1:]] == ["attention", "seed"]
    for row in against[1:]:
        assert row[1] == "-50*|[-66.7, -33.3]"  # -0.3 is -50 %, so -0.4 is -66.7 %
        assert row[2].split("|")[0] == "0"
    assert all("tau" not in cell for cell in against[0])  # nothing was measured


def test_the_front_names_who_dominates(html):
    (front,) = [table for table in tables(html) if table[0][-1].startswith("dominated by")]
    found = {row[0]: row[-1].split("|")[0] for row in front[1:]}
    assert found == {
        "baseline as planned": "nobody",
        "baseline at its knee": "nobody",
        "attention as planned": "baseline as planned",
    }


def test_the_page_stands_alone_and_is_escaped(html, tmp_path):
    assert "<script" not in html
    assert "http" not in html
    assert len(re.findall(r'src="data:image/svg', html)) == 3
    assert "Llama &lt;8B&gt; on H100" in html
    assert "<8B>" not in html
    assert "a &amp; b" in html
    assert write_plan_page(tmp_path / "plan.html", plan_of()).read_text() == html


def test_without_a_price_costs_are_gpu_hours():
    html = plan_page(plan_of(priced=False))
    assert "GPU h/M tokens" in tables(html)[0][0][5]
    assert "USD" not in html.replace("usd_per_gpu_hour", "")


def test_a_plan_nobody_meets_and_one_preset_alone_still_make_a_page():
    plan = plan_of()
    plan["rows"] = plan["rows"][2:]
    plan["config"]["reference"] = "seed"
    plan["pareto"]["points"] = []
    html = plan_page(plan)
    assert "not with 8" in html
    assert 'id="differences"' not in html
    assert 'id="knee"' not in html


def test_the_level_figure_marks_recorded_hours_and_bounds():
    plan = plan_of()
    figure = level_held(plan)
    for index, axis in enumerate(figure.axes):
        bound = plan["rows"][0]["fewest"]["clauses"][index]["bound"]
        scale = 1e3 if bound < 1 else 1.0
        assert axis.get_xlim()[0] == 0.0
        drawn = [tuple(np_list(line.get_xdata())) for line in axis.lines]
        assert (scale * bound, scale * bound) in drawn
        for row in plan["rows"]:
            assert (scale * row["fewest"]["clauses"][index]["recorded"],) in drawn
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "ttft_p99<1.5s",
        "tpot_p95<40ms",
    ]


def test_knees_end_where_the_document_says():
    plan = plan_of()
    figure = knees(plan)
    assert figure is not None
    drawn = [np_list(line.get_xdata()) for line in figure.axes[0].lines]
    for row in plan["rows"][:2]:
        assert [0.0, row["knee"]["rate_per_s"]] in drawn
        assert [row["knee_fails_at_per_s"]] in drawn
    without = copy.deepcopy(plan)
    for row in without["rows"]:
        row["knee"] = None
    assert knees(without) is None


def test_the_cost_figure_has_a_mark_per_operating_point():
    plan = plan_of()
    for axis in cost_against_quality(plan).axes:
        assert len(axis.lines) == len(plan["pareto"]["points"])
        costs = sorted(np_list(line.get_xdata())[0] for line in axis.lines)
        expected = [
            3.0 * p["values"]["gpu_hours_per_million_tokens"] for p in plan["pareto"]["points"]
        ]
        assert costs == pytest.approx(sorted(expected))


def np_list(values: object) -> list[float]:
    return [float(value) for value in values]  # type: ignore[attr-defined]
