"""The verifier's command: ``entropic verify``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from traces.console import FAILED, emit_json, guarded, note, progress

app = typer.Typer(no_args_is_help=True)

OUT = Path("reports") / "out" / "verify"


@app.command()
@guarded
def verify(
    target: Annotated[
        str, typer.Argument(help="Preset, law, module:attribute or path/to/file.py:attribute.")
    ] = "full",
    *,
    replay: Annotated[
        Path | None, typer.Option(help="Measure the counterexample in this file again.")
    ] = None,
    role: Annotated[
        str | None, typer.Option(help="temperature, coverage, priority or sampler, of a lone law.")
    ] = None,
    profile: Annotated[str, typer.Option(help="How hard to try: ci, quick or deep.")] = "quick",
    lanes: Annotated[int | None, typer.Option(help="Random cases per property.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for counterexamples.")] = OUT,
    certificates: Annotated[
        Path | None, typer.Option(help="Folder to write every certificate to, as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a law is stable and starvation-free, with a proof or a counterexample.

    Exits with 1 where a property is violated.
    """
    if replay is not None:
        _replay(replay, json=json)
    else:
        _verify(target, role, profile, lanes, seed, out, certificates, json=json)


@app.command()
@guarded
def prove(
    *,
    lanes: Annotated[int, typer.Option(min=1, help="Random lanes, over all laws.")] = 1_000_000,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per processor.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for counterexamples.")] = OUT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search every sound temperature law under every disturbance, a million lanes by default."""
    import os

    from reports.verify.finding import Verdict
    from reports.verify.prove import prove as run
    from reports.verify.report import print_report, write_counterexamples

    with _hypothesis_at_home(), progress("prove") as update:
        findings = run(lanes, seed=seed, processes=jobs or os.cpu_count() or 1, progress=update)
    files = write_counterexamples(findings, "prove", out)
    if json:
        config = {"lanes": lanes, "distinct_lanes": sum(row.cases for row in findings)}
        emit_json("prove", seed=seed, config=config, rows=[row.to_json() for row in findings])
    else:
        print_report(findings, files)
    if any(row.verdict is Verdict.VIOLATED for row in findings):
        raise typer.Exit(FAILED)


def _verify(
    spec: str,
    role: str | None,
    profile: str,
    lanes: int | None,
    seed: int,
    out: Path,
    certificates: Path | None,
    *,
    json: bool,
) -> None:
    from controllers.core import require
    from reports.verify.finding import Verdict
    from reports.verify.report import print_report, write_certificates, write_counterexamples
    from reports.verify.run import verify as run
    from reports.verify.setting import get_budget
    from reports.verify.target import resolve

    budget = get_budget(profile, lanes=lanes, seed=seed)
    for folder in filter(None, (out, certificates)):
        require(folder.is_dir() or not folder.exists(), "must be a folder", path=str(folder))
    target = resolve(spec, role)
    with _hypothesis_at_home(), progress(f"verify {target.subject_name}") as update:
        findings = run(target, budget, progress=update)
    files = write_counterexamples(findings, target.subject_name, out)
    if certificates is not None:
        written = write_certificates(findings, target.subject_name, certificates)
        note(f"{len(written)} certificates in {certificates}")
    if json:
        config = {"target": spec, "subject": target.subject_name, "budget": budget.to_json()}
        rows = [
            row.to_json()
            | {"story": list(row.story), "file": str(files[i]) if i in files else None}
            for i, row in enumerate(findings)
        ]
        emit_json("verify", seed=seed, config=config, rows=rows)
    else:
        print_report(findings, files)
    if any(row.verdict is Verdict.VIOLATED for row in findings):
        raise typer.Exit(FAILED)


@contextmanager
def _hypothesis_at_home() -> Iterator[None]:
    """Keep hypothesis from leaving its folder in the user's."""
    from hypothesis import configuration

    with TemporaryDirectory() as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(None)


def _replay(path: Path, *, json: bool) -> None:
    from controllers.certificates.certificate import finite_or_none
    from reports.verify.replay import replay
    from reports.verify.report import figure, figures, print_story

    done = replay(path)
    trial = done.trial
    if json:
        row = {
            "property": done.name,
            "case": trial.case,
            "value": finite_or_none(trial.value),
            "bound": finite_or_none(trial.bound),
            "raised": trial.raised,
            "reproduced": trial.violates,
            "story": done.story,
        }
        emit_json("verify replay", seed=None, config={"file": str(path)}, rows=[row])
    else:
        found = trial.raised or figures(trial.value, trial.bound)
        held = f"{figure(trial.value)} is within {figure(trial.bound)}"
        verdict = f"reproduced: {found}" if trial.violates else f"not reproduced: {held}"
        print_story(done.name, [*done.story, verdict])
    if trial.violates:
        raise typer.Exit(FAILED)
