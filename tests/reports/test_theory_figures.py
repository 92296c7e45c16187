"""The theory figures draw from small tables, and the tables agree with the theory they show."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import reports.theory_commands as commands
from controllers.entropy import max_varentropy
from reports.figures.cobweb import cobweb as draw_cobweb
from reports.figures.cobweb import ending
from reports.figures.iss_tube import iss_tube
from reports.figures.service_gap import service_gap as draw_gap
from reports.figures.stability_region import stability_region
from reports.figures.varentropy import varentropy
from reports.studies.theory import Cobweb, Responses, TubeRuns, cobweb, responses, tube
from reports.studies.theory_limits import Region, ServiceGap, region, service_gap, two_levels
from reports.style import save
from simulator.defaults import TRACE
from traces.store import read_trace

PNG = b"\x89PNG\r\n\x1a\n"
NAMES = ("varentropy", "cobweb", "stability_region", "iss_tube", "service_gap")


@pytest.fixture(scope="module")
def answers() -> Responses:
    return responses(read_trace(TRACE), seed=0)


@pytest.fixture(scope="module")
def webs() -> Cobweb:
    return cobweb()


@pytest.fixture(scope="module")
def points() -> Region:
    return region(seed=0, columns=6, per_column=4, steps=160)


@pytest.fixture(scope="module")
def runs() -> TubeRuns:
    return tube(seed=0)


@pytest.fixture(scope="module")
def waits() -> ServiceGap:
    return service_gap(seed=0, sieges=4, steps=200)


@pytest.fixture
def draw(answers, webs, points, runs, waits) -> dict[str, Callable[[], Figure]]:
    return {
        "varentropy": lambda: varentropy(answers, footer="seed 0"),
        "cobweb": lambda: draw_cobweb(webs, footer="seed 0"),
        "stability_region": lambda: stability_region(points, footer="seed 0"),
        "iss_tube": lambda: iss_tube(runs, footer="seed 0"),
        "service_gap": lambda: draw_gap(waits, footer="seed 0"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_theory_figure_is_a_png_with_footer_and_equal_bytes_twice(draw, name, tmp_path):
    first, second = (save(draw[name](), tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert first.startswith(PNG)
    assert len(zlib.compress(first)) > 10_000  # a blank page compresses to far less
    assert first == second
    figure = draw[name]()
    texts = figure.findobj(match=lambda artist: hasattr(artist, "get_text"))
    assert any(text.get_text() == "seed 0" for text in texts)
    assert all(axis.lines for axis in figure.axes)


def test_the_tangents_have_the_slope_of_the_entropy_curve(answers):
    for curve in answers.curves:
        slope = np.gradient(curve.h, curve.x, edge_order=2)
        assert curve.v == pytest.approx(slope, abs=0.06)  # of 30, from differences of .009 in x
    assert answers.curves[1].v.max() == pytest.approx(answers.n_max, rel=1e-3)
    assert answers.text_v.max() < answers.n_max


def test_the_printed_law_ends_on_a_clip_and_the_corrected_one_where_theory_says(webs):
    for web in webs.webs:
        end = ending(web, webs.x_star)
        if web.law == "printed":
            assert end.startswith("runs to the clip")
        elif web.multiple > 2.0:
            assert end.startswith("cycles")
        else:
            assert "settl" in end
        # The path climbs the very map that is drawn.
        assert np.interp(web.path[:-1], web.x, web.after) == pytest.approx(web.path[1:], abs=2e-3)


def test_monotone_gains_never_cross_the_set_point(webs):
    for web in webs.webs:
        if web.law == "corrected" and web.multiple <= 1.0:
            assert np.all(web.path <= webs.x_star + 1e-12)


def test_no_run_lies_on_the_wrong_side_of_its_boundary(points):
    assert points.misplaced == 0
    assert 0.1 < points.diverged.mean() < 0.9
    assert not points.default_diverged.any()


def test_a_run_on_the_wrong_side_is_counted(points):
    flipped = points.diverged.copy()
    flipped[:3] = ~flipped[:3]
    assert dataclasses.replace(points, diverged=flipped).misplaced == 3


def test_two_level_rows_have_the_varentropy_asked_for():
    most = max_varentropy(1000)
    v = np.array([0.01, 1.0, 0.999 * most])
    assert two_levels(v, 1000).response(np.zeros(3))[1] == pytest.approx(v, rel=1e-9)


def test_every_run_from_the_equilibrium_stays_inside_the_tube_it_is_drawn_in(runs):
    assert math.isfinite(runs.radius)
    assert 0.5 * runs.radius < runs.worst <= runs.radius
    outside = np.abs(runs.error[:, -1])
    assert outside[0] > runs.radius  # it starts outside ...
    assert outside[-100:].max() <= runs.radius  # ... and enters


def test_the_printed_order_starves_past_the_bound_that_the_aged_one_keeps(waits):
    by_law = {wait.law: wait for wait in waits.waits}
    aged, printed = by_law["aged"], by_law["printed"]
    assert aged.finished
    assert aged.longest[-1] <= aged.bound < math.inf
    assert not printed.finished
    assert math.isinf(printed.bound)
    assert printed.longest[-1] > aged.bound


def test_the_longest_wait_is_the_largest_of_the_waits_so_far(waits):
    for wait in waits.waits:
        np.testing.assert_array_equal(np.maximum.accumulate(wait.now), wait.longest)


def test_captions_give_the_conservatism_of_sufficient_bounds(runs, waits):
    assert f"conservatism ratio {runs.radius / runs.worst:.2f}" in runs.caption()
    assert "conservatism ratio" in waits.caption()


def test_the_command_writes_every_figure_and_prints_its_caption(draw, tmp_path, monkeypatch):
    def small(_trace: object, seed: int):
        for name in NAMES:
            yield name, draw[name](), f"caption of {name}, seed {seed}"

    monkeypatch.setattr(commands, "drawn", small)
    out = tmp_path / "made" / "theory"
    done = CliRunner().invoke(commands.app, ["--out", str(out), "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in Path(out).iterdir()) == sorted(NAMES)
    for name in NAMES:
        assert f"{name}: caption of {name}, seed 3" in done.stdout


@pytest.mark.slow
def test_every_seed_draws_all_figures():
    trace = read_trace(TRACE)
    for seed in range(3):
        found = {name: caption for name, _figure, caption in commands.drawn(trace, seed)}
        assert tuple(found) == NAMES
        assert "0 on the wrong side" in found["stability_region"]
