"""One static page: parts in, HTML out. No scripts, no outside resources; pictures beside or inside.

Pictures inside are SVG whose text is drawn as paths, so that they look alike wherever they open.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

import matplotlib as mpl

from reports.parts import Part
from reports.style import STYLE as FIGURE_STYLE

HEADLINE = "Entropic Time"
LEAD = (
    "Token entropy as the control signal of an LLM server: it sets the sampling temperature, how "
    "many KV pages attention reads, and who advances. This page replays recorded entropy through "
    "a simulated server under each preset and shows what every law changes, and what it does not."
)
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #222;
  background: #fff; max-width: 68rem; margin: 2.5rem auto 5rem; padding: 0 1.2rem; }
h1 { font-size: 2rem; margin: 0 0 .4rem; } h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; }
p, li, figcaption, dd { max-width: 46rem; }
p.lead { font-size: 1.1rem; }
nav { margin: 1rem 0 0; font-size: .92rem; } nav a { margin-right: 1rem; }
a { color: #0060a0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0 1.4rem; font-size: .84rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .4rem; }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid #e6e6e6; }
thead th { border-bottom: 2px solid #444; font-weight: 600; }
th:first-child { text-align: left; } tbody th { font-weight: 600; }
small { color: #666; font-weight: 400; } td.differs { font-weight: 650; }
ul.notes { font-size: .86rem; color: #555; padding-left: 1.1rem; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .93rem; margin-top: .5rem; }
blockquote { margin: 1rem 0; padding: .1rem 0 .1rem 1rem; border-left: 3px solid #ccc; }
pre { white-space: pre-wrap; font: .9rem/1.5 ui-monospace, monospace; margin: .3rem 0; }
dl { font-size: .88rem; } dt { font-weight: 600; }
dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
tr.topic th { padding-top: 1.2rem; border-bottom: 2px solid #444; }
small.against { display: inline-block; min-width: 4.2rem; }
th.text, td.text { text-align: left; white-space: normal; }
td.text { min-width: 6rem; max-width: 44rem; overflow-wrap: anywhere; }
td.text:last-child { min-width: 9rem; }
ul.story { list-style: none; padding: 0; font: .82rem/1.5 ui-monospace, monospace; }
ul.story li { padding-left: 2ch; text-indent: -2ch; max-width: 62rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  tbody th { white-space: normal; min-width: 6rem; }
  small.against { display: block; min-width: 0; }
}
"""


def beside(part: Part) -> str:
    """Return where a part's figure lies: beside the page, as ``<name>.png``."""
    return f"{part.name}.png"


def inside(part: Part) -> str:
    """Return a part's figure itself, as a data address; equal figures give equal bytes."""
    assert part.figure is not None, "a part without a figure has no picture"
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": part.name, "svg.fonttype": "path"}, fname=FIGURE_STYLE):
        part.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def render(
    parts: Sequence[Part],
    provenance: Mapping[str, str],
    *,
    headline: str = HEADLINE,
    lead: str = LEAD,
    picture: Callable[[Part], str] = beside,
) -> str:
    """Return the page; ``picture`` tells where each part's figure is, or gives it."""
    links = "".join(f'<a href="#{part.name}">{escape(part.title)}</a> ' for part in parts)
    sources = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in provenance.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(headline)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(headline)}</h1>\n<p class=lead>{escape(lead)}</p>\n<nav>{links}</nav>\n"
        + "".join(_section(part, picture) for part in parts)
        + f'<section id="provenance"><h2>Provenance</h2><dl>{sources}</dl></section>\n'
        "</body>\n</html>\n"
    )


def _section(part: Part, source: Callable[[Part], str]) -> str:
    picture = ""
    if part.figure is not None:
        picture = (
            f'<figure><img src="{source(part)}" alt="{escape(part.title)}">'
            f"<figcaption>{escape(part.caption)}</figcaption></figure>"
        )
    body = f"<div class=wide>{part.html}</div>" if part.html else ""
    return f'<section id="{part.name}"><h2>{escape(part.title)}</h2>{body}{picture}</section>\n'
