"""The command line: mounts one typer app per package."""

from __future__ import annotations

import sys

import typer

from traces.console import INTERRUPTED, note, quiet_libraries

app = typer.Typer(
    name="entropic",
    help="Entropy as the control signal of LLM inference: simulate, run live, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _mount() -> None:
    from backend.chat_commands import app as chatting
    from backend.commands import app as live
    from backend.profile_commands import app as measured
    from reports.bench.bench_commands import app as benched
    from reports.claims.commands import app as audited
    from reports.commands import app as reported
    from reports.estimator_commands import app as estimated
    from reports.evaluation.eval_commands import app as evaluated
    from reports.live_commands import app as studied
    from reports.page_commands import app as pages
    from reports.parity_commands import app as parity
    from reports.plan_commands import app as planned
    from reports.simulate_commands import app as simulated
    from reports.soak.commands import app as soaked
    from reports.sweep_commands import app as swept
    from reports.theory_commands import app as theory
    from reports.validation.commands import app as validated
    from reports.variance_commands import app as steadied
    from reports.verify.commands import app as verified
    from simulator.failure_commands import app as failing
    from traces.commands import app as trace
    from traces.profiles_commands import app as profile

    studies = (studied, steadied, estimated, theory)
    live_parts = (live, chatting, evaluated, soaked)
    for part in (
        reported,
        simulated,
        planned,
        swept,
        failing,
        validated,
        *live_parts,
        parity,
        *studies,
        verified,
        audited,
    ):
        app.add_typer(part)
    app.add_typer(benched, name="bench")
    app.add_typer(pages, name="page")
    app.add_typer(trace, name="trace")
    profile.add_typer(measured)
    app.add_typer(profile, name="profile")


def main() -> None:
    """Run the command line."""
    try:
        quiet_libraries()
        _mount()
        app()
    except KeyboardInterrupt:  # before a command began; commands answer it themselves
        note("interrupted")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
