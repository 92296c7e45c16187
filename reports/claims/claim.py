"""A claim of the paper, and what evidence says of it.

The judge of a claim computes its verdict; it does not know it beforehand. A claim that nothing here
can decide is ``untestable``, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controllers.core import require
from reports.claims.context import Context


class Ruling(StrEnum):
    """How a claim stands."""

    HOLDS = "holds"
    CORRECTED = "holds when corrected"
    REFUTED = "refuted"
    UNTESTABLE = "untestable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the evidence says: a ruling, one or two sentences with the numbers in them."""

    ruling: Ruling
    because: str
    numbers: Mapping[str, float] = field(default_factory=dict)  # for --json; finite
    corrected: str = ""  # the statement that does hold, where one does

    def __post_init__(self) -> None:
        require(self.because != "", "a ruling needs its reason", ruling=self.ruling.value)
        require(
            self.ruling is not Ruling.CORRECTED or self.corrected != "",
            "a corrected claim needs its corrected statement",
            because=self.because,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement of the paper, in our words, and the function that judges it."""

    key: str  # stable and short: "prop-1", "thm-a1", "F22", "table-1"
    section: str  # of the paper: "7.2"
    says: str  # the claim, paraphrased
    judge: Callable[[Context], Judgement]
    command: str  # what reproduces the evidence
    flaws: tuple[str, ...] = ()  # catalogued flaws this claim covers: "F8", "F9"
