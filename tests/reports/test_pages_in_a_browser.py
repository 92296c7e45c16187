"""The pages open in a real browser, wide and narrow: pictures load, nothing runs over the side."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from controllers.presets import get_preset
from reports.plan_page import plan_page
from reports.simulation_build import simulation_evidence
from reports.simulation_page import simulation_page
from simulator.scenario import run
from tests.reports.plans import plan_of

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1200, 520)
# Run in the browser, on a copy of the page: what it drew is written where the dump shows it.
PROBE = """<script>addEventListener("load", () => {
const seen = {
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  pictures: [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().right]),
  headings: [...document.querySelectorAll("h2")].map(h => h.textContent),
  cells: document.querySelectorAll("td").length,
  dead: [...document.querySelectorAll("nav a")].filter(
    a => !document.querySelector(a.getAttribute("href"))).length,
};
document.body.dataset.seen = JSON.stringify(seen);
});</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def pages(scenario):
    runs = [run(scenario, get_preset(name), 1) for name in ("baseline", "full")]
    return {
        "simulation": simulation_page(simulation_evidence(scenario, runs)),
        "plan": plan_page(plan_of()),
    }


def opened(page: str, width: int, folder) -> dict:
    path = folder / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, "the page never finished loading"
    return json.loads(unescape(found.group(1)))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["simulation", "plan"])
def test_a_page_opens_and_fits(pages, name, width, tmp_path):
    seen = opened(pages[name], width, tmp_path)
    assert seen["width"] == width
    assert seen["page"] <= width  # tables scroll in their own box
    figures = {"simulation": 3, "plan": 3}[name]
    assert len(seen["pictures"]) == figures
    for natural, right in seen["pictures"]:
        assert natural > 300
        assert right <= width
    wanted = {"simulation": "Time and quality", "plan": "Answer"}[name]
    assert seen["headings"][0] == wanted
    assert seen["headings"][-1] == "Provenance"
    assert seen["cells"] > 50
    assert seen["dead"] == 0
