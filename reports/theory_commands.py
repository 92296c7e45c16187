"""The command that draws the figures of the theory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from traces.console import commit, emit_json, guarded, note, package_versions, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from traces.store import Trace

app = typer.Typer()
OUT = Path("reports") / "out" / "theory"
LIBRARIES = ("entropic-time", "numpy", "matplotlib")
FIGURES = 5


class Captioned(Protocol):
    """A table that says what it shows, with its own numbers."""

    def caption(self) -> str:
        """Return one or two sentences."""
        ...


@app.command()
@guarded
def figures(
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = OUT,
    seed: Annotated[int, typer.Option(min=0, help="Of the token, the points, the sieges.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw the theory: entropy response, cobwebs, stability region, tube, service gap."""
    from reports.style import save
    from simulator.defaults import TRACE
    from traces.store import read_trace

    out.mkdir(parents=True, exist_ok=True)
    trace = read_trace(TRACE)
    rows = []
    with progress("figures") as update:
        for done, (name, figure, caption) in enumerate(drawn(trace, seed)):
            path = save(figure, out / f"{name}.png")
            rows.append({"figure": name, "file": str(path), "caption": caption})
            update(done + 1, FIGURES)
    note(f"wrote {len(rows)} figures into {out}")
    if json:
        emit_json("figures", seed=seed, config={"out": str(out)}, rows=rows)
    else:
        sys.stdout.writelines(f"{row['figure']}: {row['caption']}\n" for row in rows)


def drawn(trace: Trace, seed: int) -> Iterator[tuple[str, Figure, str]]:
    """Run each study and draw its figure; yield name, figure and caption."""
    from reports.figures.cobweb import cobweb
    from reports.figures.iss_tube import iss_tube
    from reports.figures.service_gap import service_gap
    from reports.figures.stability_region import stability_region
    from reports.figures.varentropy import varentropy
    from reports.studies import theory, theory_limits

    recorded = f"{trace.metadata['model']}, recording sha256 {trace.sha256[:12]}"
    made_up, server = "logits in closed form, no model", "made-up entropies, no model"

    def one(
        name: str, found: Captioned, draw: Callable[..., Figure], rests_on: str
    ) -> tuple[str, Figure, str]:
        below = f"{found.caption()}\n{footer(rests_on, seed)}"
        return name, draw(found, footer=below), found.caption()

    yield one("varentropy", theory.responses(trace, seed=seed), varentropy, recorded)
    yield one("cobweb", theory.cobweb(), cobweb, made_up)
    yield one("stability_region", theory_limits.region(seed=seed), stability_region, made_up)
    yield one("iss_tube", theory.tube(seed=seed), iss_tube, recorded)
    yield one("service_gap", theory_limits.service_gap(seed=seed), service_gap, server)


def footer(rests_on: str, seed: int) -> str:
    """Return the command, what the figure rests on, versions and commit, in one line."""
    versions = ", ".join(f"{k} {v}" for k, v in package_versions(*LIBRARIES).items())
    code = commit(Path(__file__).parent)
    return f"entropic figures --seed {seed}; {rests_on}; {versions}; commit {code}"
