"""The page of rulings as Markdown: provenance, counts, a table per section, flaws by claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.claims.audit import Row
from reports.claims.claim import Claim, Ruling
from reports.claims.context import Context
from reports.claims.registry import by_flaw
from traces.console import commit, package_versions

LIBRARIES = ("entropic-time", "numpy", "scipy", "torch")
INTRO = (
    "Written by `entropic claims`; every ruling is computed. *Holds when corrected*: not as "
    "printed, but the statement in the row does. *Refuted*, of a measured result: it does not "
    "carry over to our bench; the paper names no set-up to repeat. *Untestable*: the row says why."
)
COLUMNS = ("key", "section", "claim", "ruling", "evidence", "command")


def provenance(context: Context, command: str) -> dict[str, str]:
    """Return what a reader needs to get the same page again, as labelled lines."""
    trace, seeds = context.trace, context.seeds
    versions = package_versions(*LIBRARIES)
    return {
        "command": f"`{command}`",
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "trace": f"{trace.path.name}, sha256 {trace.sha256}",
        "model": str(trace.metadata["model"]),
        "machine of the step law": context.scenario.profile.device,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": commit(Path(__file__).parent),
    }


def render(
    sections: Mapping[str, Sequence[Claim]], rows: Sequence[Row], lines: Mapping[str, str]
) -> str:
    """Return the page; sections without a row are left out."""
    by_key = {row.claim.key: row for row in rows}
    parts = ["# The paper's claims", INTRO, "\n".join(f"- {k}: {v}" for k, v in lines.items())]
    parts.append(_counts(rows))
    for title, claims in sections.items():
        shown = [by_key[claim.key] for claim in claims if claim.key in by_key]
        if shown:
            parts += [f"## {title}", _table(COLUMNS, [_cells(row) for row in shown])]
    flaws = [(flaw, ", ".join(keys)) for flaw, keys in by_flaw([r.claim for r in rows]).items()]
    covered = [(flaw, keys) for flaw, keys in flaws if keys]
    if covered:
        parts += ["## Catalogued flaws", _table(("flaw", "claims"), covered)]
    return "\n\n".join(parts) + "\n"


def _counts(rows: Sequence[Row]) -> str:
    counts = [(r.value, str(sum(row.judgement.ruling is r for row in rows))) for r in Ruling]
    return _table(("ruling", "claims"), [*counts, ("all", str(len(rows)))])


def _cells(row: Row) -> tuple[str, ...]:
    found = row.judgement
    evidence = found.because
    if found.corrected:
        evidence += f" **Corrected:** {found.corrected}"
    ruling = f"**{found.ruling.value}**"
    claim = row.claim
    return (claim.key, claim.section, claim.says, ruling, evidence, f"`{claim.command}`")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
