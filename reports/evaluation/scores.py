"""Scorers of free text: one function per metric, ``(text, answer, details) -> [0, 1]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from controllers.core import require
from traces.prompts import Prompt, check_answer

Details = Mapping[str, Any]
Metric = Callable[[str, tuple[str, ...], Details], float]


def exact(text: str, answer: tuple[str, ...], details: Details) -> float:
    """Return 1 where the text states the one answer, by the rules of ``traces.prompts``."""
    del details
    require(len(answer) == 1, "an exact metric needs one answer", answers=len(answer))
    asked = Prompt(prompt_id="", task_class="", source="", text="?", answer=answer[0])
    return float(check_answer(asked, text) is True)


def every(text: str, answer: tuple[str, ...], details: Details) -> float:
    """Return the share of the answers the text states, as whole words, in any order."""
    del details
    require(len(answer) >= 1, "this metric needs answers", answers=len(answer))
    words = set(_words(text))
    return sum(one.lower() in words for one in answer) / len(answer)


def rouge_l(text: str, answer: tuple[str, ...], details: Details) -> float:
    """Return ROUGE-L F1 against the best of the references (Lin 2004), with stemming."""
    del details
    require(len(answer) >= 1, "this metric needs references", references=len(answer))
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return max(float(scorer.score(one, text)["rougeL"].fmeasure) for one in answer)


def instructions(text: str, answer: tuple[str, ...], details: Details) -> float:
    """Return the share of an IFEval prompt's instructions that the text follows (strict)."""
    del answer
    from reports.evaluation.ifeval import followed

    verdicts = followed(text, details["instructions"])
    return sum(verdicts) / len(verdicts)


def unscored(text: str, answer: tuple[str, ...], details: Details) -> float:
    """Return NaN: the task is only measured against the dense model."""
    del text, answer, details
    return float("nan")


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "exact": exact,
        "every": every,
        "rouge_l": rouge_l,
        "instructions": instructions,
        "none": unscored,
    }
)
PASSED = MappingProxyType({"exact": 1.0, "every": 1.0, "rouge_l": 0.0, "instructions": 1.0})


def _words(text: str) -> list[str]:
    kept = "".join(c if c.isalnum() or c == "-" else " " for c in text.lower())
    return kept.split()
