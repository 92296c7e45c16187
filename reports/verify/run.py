"""Runs every property of a target: fits, certificate, search, verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from controllers.certificates.certificate import Certificate
from controllers.certificates.wrapping import Certified
from reports.verify.error_line import error_line
from reports.verify.finding import Finding, Verdict
from reports.verify.property import Case, Property
from reports.verify.registry import CALLABLE, cost_of, properties_of
from reports.verify.replay import counterexample
from reports.verify.search import Searched, search
from reports.verify.setting import Budget
from reports.verify.target import Part, Target

Properties = Callable[[Part], tuple[Property, ...]]
Progress = Callable[[int, int], None]

REFUTED = "THE CERTIFICATE IS REFUTED: a mistake in the theory or the code; please report it"
DISPROVED = "THE LAW'S OWN CERTIFICATE IS REFUTED"
UNFOUND = "theory predicts a violation; the search did not find it"


def verify(
    target: Target,
    budget: Budget,
    *,
    properties: Properties = properties_of,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return one finding per part and property of ``target``, in the order of the registry."""
    planned = [(part, properties(part)) for part in target.parts]
    total = sum(len(listed) for _, listed in planned)
    findings: list[Finding] = []
    for part, listed in planned:
        unusable = ""
        for prop in listed:
            if unusable:
                found = _row(prop, part, verdict=Verdict.UNFIT, note=unusable)
            else:
                found = check(prop, part, target, budget)
            if prop.name == CALLABLE and found.verdict is Verdict.VIOLATED:
                unusable = f"not run: {CALLABLE} is violated"
            findings.append(found)
            if progress is not None:
                progress(len(findings), total)
    return findings


def check(
    prop: Property, part: Part, target: Target, budget: Budget, *, cost: int | None = None
) -> Finding:
    """Check one property of one part. Whatever the law raises is a violation.

    ``cost`` divides the budget; by default it is the property's own.
    """
    try:
        reason = prop.unfit(part.law)
        if reason:
            return _row(prop, part, verdict=Verdict.UNFIT, note=reason)
        proof, trouble = _certificate(prop, part.law)
        searched = search(prop, part.law, budget.divided(cost or cost_of(prop.name)))
        if searched.worst.raised and trouble.endswith(searched.worst.raised):
            trouble = ""  # the same words, said once
    except Exception as error:
        return _row(prop, part, verdict=Verdict.VIOLATED, note=f"raised {error_line(error)}")
    row = _row(
        prop,
        part,
        verdict=_verdict(searched, proof),
        bound=searched.worst.bound,
        worst=searched.worst.value,
        cases=searched.cases,
        note="; ".join(filter(None, (trouble, *_notes(searched, proof, part.law)))),
        certificate=proof,
    )
    return _with_counterexample(row, prop, part, target, searched) if _violated(row) else row


def _row(prop: Property, part: Part, **parts: Any) -> Finding:
    return Finding(
        name=prop.name,
        role=part.role,
        subject=part.label,
        statement=prop.statement,
        unit=prop.unit,
        **parts,
    )


def _certificate(prop: Property, law: Any) -> tuple[Certificate | None, str]:
    try:
        return prop.certificate(law), ""
    except Exception as error:
        return None, f"no certificate: {error_line(error)}"


def _verdict(searched: Searched, proof: Certificate | None) -> Verdict:
    if searched.worst.violates:
        return Verdict.VIOLATED
    return Verdict.CERTIFIED if proof is not None and proof.holds else Verdict.SEARCHED


def _notes(searched: Searched, proof: Certificate | None, law: Any) -> list[str]:
    notes = [searched.worst.raised, searched.note]
    if searched.exhaustive:
        notes.append("all cases")
    if proof is None:
        return notes
    if proof.holds:
        refuted = DISPROVED if isinstance(law, Certified) else REFUTED
        notes.append(refuted if searched.worst.violates else proof.kind)
    elif proof.kind == "exact" and math.isinf(searched.worst.bound):
        notes.append(f"no bound exists: {proof.statement}")
    elif proof.kind == "exact":
        notes.append("as theory predicts" if searched.worst.violates else UNFOUND)
    else:
        notes.append(f"no proof: {proof.statement}")
    return notes


def _violated(row: Finding) -> bool:
    return row.verdict is Verdict.VIOLATED


def _with_counterexample(
    row: Finding, prop: Property, part: Part, target: Target, searched: Searched
) -> Finding:
    story = _story(prop, part.law, searched.worst.case)
    document = counterexample(target, part, prop, searched.worst, story)
    return dataclasses.replace(row, story=story, counterexample=document)


def _story(prop: Property, law: Any, case: Case) -> tuple[str, ...]:
    try:
        return tuple(prop.story(law, case))
    except Exception as error:
        return (f"the law raises: {error_line(error)}",)
