from __future__ import annotations

import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure

from controllers.presets import PRESETS
from reports.figures.forest import PANELS, forest
from reports.figures.latency import latency_against_load
from reports.figures.pages import pages_kept
from reports.figures.response import entropy_response
from reports.figures.sign_error import TITLES, sign_error
from reports.style import COLOURS, save

PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure: Figure) -> str:
    return " | ".join(
        text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))
    )


@pytest.fixture
def draw(evidence):
    ablation, trace = evidence.ablation, evidence.ablation.scenario.trace
    return {
        "sign_error": lambda: sign_error(ablation.first, target_nats=1.0, footer="n = 8"),
        "forest": lambda: forest(ablation, footer="n = 8"),
        "pages_kept": lambda: pages_kept(evidence.trace_info["kept_share"], footer="n = 8"),
        "entropy_response": lambda: entropy_response(trace, target_nats=1.0, footer="n = 8"),
        "latency": lambda: latency_against_load(evidence.load, footer="n = 8"),
    }


NAMES = ("sign_error", "forest", "pages_kept", "entropy_response", "latency")


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_a_png_with_units_and_footer(draw, name, tmp_path):
    figure = draw[name]()
    data = save(figure, tmp_path / "figure.png").read_bytes()
    assert data.startswith(PNG)
    assert len(zlib.compress(data)) > 10_000  # a blank page compresses to far less
    assert "n = 8" in texts(figure)
    labels = [axis.get_xlabel() for axis in figure.axes] + [a.get_ylabel() for a in figure.axes]
    assert any(unit in " ".join(labels) for unit in ("nats", "%", "tokens", "capacity"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png"]


@pytest.mark.parametrize("name", NAMES)
def test_drawing_twice_gives_the_same_bytes(draw, name, tmp_path):
    first, second = (save(draw[name](), tmp_path / f"{i}.png") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_every_preset_has_its_own_colour():
    assert set(COLOURS) == set(PRESETS)
    assert len(set(COLOURS.values())) == len(PRESETS)


def test_the_forest_shows_every_difference_it_was_given(ablation):
    figure = forest(ablation, footer="")
    assert len(figure.axes) == len(PANELS)
    for axis, panel in zip(figure.axes, PANELS, strict=True):
        drawn = sorted(float(c[0].get_xdata()[0]) for c in axis.containers)
        given = sorted(panel.difference(row).mean for row in ablation.rows[1:])
        assert drawn == pytest.approx(given)


def test_the_sign_figure_keeps_every_temperature_in_view(ablation):
    figure = sign_error(ablation.first, target_nats=1.0, footer="")
    low, high = figure.axes[0].get_ylim()
    for name in TITLES:
        t = np.exp(ablation.first[name].tokens["command"])
        assert low <= t.min()
        assert t.max() <= high
