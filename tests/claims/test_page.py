"""The audit as a whole: every flaw is covered, every command exists, the page says it all."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import typer

import entropic
from reports.claims.audit import JudgeFailed, Row, judge_all
from reports.claims.claim import Claim, Judgement, Ruling
from reports.claims.context import Context
from reports.claims.page import provenance, render
from reports.claims.registry import FLAWS, SECTIONS, all_claims, by_flaw, get_claim
from tests.claims.doctored import recorded

ROOT = Path(__file__).resolve().parents[2]
CHEAP = ("abstract", "references", "block-threshold", "guards", "table-1", "pruning-feedback")


def claim(key: str = "made-up", **parts: object) -> Claim:
    given = {
        "section": "0",
        "says": "Something.",
        "judge": lambda context: Judgement(ruling=Ruling.HOLDS, because="It does."),
        "command": "entropic claims",
    }
    return Claim(key=key, **{**given, **parts})  # type: ignore[arg-type]


def broken(context: Context) -> Judgement:
    raise ZeroDivisionError("by zero")


def test_every_catalogued_flaw_is_covered_and_no_other_is_named():
    covered = by_flaw(all_claims())
    assert [flaw for flaw, keys in covered.items() if not keys] == []
    assert {flaw for one in all_claims() for flaw in one.flaws} == set(FLAWS)


def test_a_key_used_twice_is_refused():
    with pytest.raises(ValueError, match=r"keys of their own; got keys=\['made-up'\]"):
        all_claims({"a": (claim(),), "b": (claim(),)})


def test_an_unknown_claim_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown claim 'prop-9'; known: .*abstract"):
        get_claim("prop-9")


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    """Every command of the command line and its options."""
    entropic._mount()
    group = typer.main.get_command(entropic.app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts = {name: command}
        parts |= {f"{name} {sub}": c for sub, c in getattr(command, "commands", {}).items()}
        for words, one in parts.items():
            found[words] = {o for p in one.params for o in (*p.opts, *p.secondary_opts)}
    return found


@pytest.mark.parametrize("one", all_claims(), ids=lambda one: one.key)
def test_the_command_of_every_claim_exists(one: Claim, commands: dict[str, set[str]]):
    program, *words = shlex.split(one.command)
    if program == "pytest":
        path, *names = words[0].split("::")
        assert (ROOT / path).is_file()
        assert all(f"def {name}(" in (ROOT / path).read_text() for name in names)
        return
    assert program == "entropic"
    called = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0]
    options = [word for word in words if word.startswith("--")]
    assert set(options) <= commands[called], one.command
    if "--only" in options:
        assert get_claim(words[words.index("--only") + 1])


def test_the_audit_is_deterministic():
    chosen = [get_claim(key) for key in CHEAP]
    once, again = (
        [row.to_json() for row in judge_all(chosen, dataclasses.replace(recorded()))]
        for _ in range(2)
    )
    assert once == again
    other = judge_all(chosen, dataclasses.replace(recorded(), seeds=(7,)))
    assert [row.to_json()["ruling"] for row in other] == [row["ruling"] for row in once]


def test_a_judge_that_raises_is_named():
    with pytest.raises(JudgeFailed, match="the judge of bad raised ZeroDivisionError: by zero"):
        judge_all([claim("good"), claim("bad", judge=broken)], recorded())


def test_progress_counts_the_claims():
    seen: list[tuple[int, int]] = []
    judge_all([claim("a"), claim("b")], recorded(), progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def rows() -> list[Row]:
    corrected = Judgement(
        ruling=Ruling.CORRECTED, because="a | b", numbers={"x": float("inf")}, corrected="It c."
    )
    return [
        Row(claim("one", flaws=("F3",)), Judgement(ruling=Ruling.HOLDS, because="Yes.")),
        Row(claim("two", says="a\nb"), corrected),
    ]


def test_the_page_counts_rulings_and_shows_every_row():
    sections = {"First": (rows()[0].claim,), "Second": (rows()[1].claim,), "Empty": (claim("x"),)}
    page = render(sections, rows(), {"seeds": "0 to 4"})
    assert "- seeds: 0 to 4" in page
    for line in ("| holds | 1 |", "| holds when corrected | 1 |", "| refuted | 0 |", "| all | 2 |"):
        assert line in page
    assert "| one | 0 | Something. | **holds** | Yes. | `entropic claims` |" in page
    assert "| two | 0 | a b | **holds when corrected** | a \\| b **Corrected:** It c. |" in page
    assert "| F3 | one |" in page
    assert "## Empty" not in page


def test_every_table_line_has_the_columns_of_its_head():
    found = judge_all([get_claim(key) for key in CHEAP], recorded())
    lines = render(SECTIONS, found, {}).replace("\\|", "").splitlines()
    widths = [line.count("|") for line in lines if line.startswith("| ")]
    assert set(widths) == {3, 7}


def test_the_page_says_where_it_comes_from():
    lines = provenance(recorded(), "entropic claims --seeds 3")
    assert lines["command"] == "`entropic claims --seeds 3`"
    assert lines["seeds"] == "0 to 2"
    assert recorded().trace.sha256 in lines["trace"]
    assert {"commit", "versions", "model"} <= set(lines)


def test_json_has_no_infinity():
    assert rows()[1].to_json()["numbers"] == {"x": None}
    assert rows()[0].to_json()["corrected"] is None


def test_a_corrected_ruling_needs_its_statement():
    with pytest.raises(ValueError, match="needs its corrected statement"):
        Judgement(ruling=Ruling.CORRECTED, because="because")
