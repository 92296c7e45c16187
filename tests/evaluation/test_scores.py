"""Scorers of free text on answers whose score is known by hand."""

from __future__ import annotations

import math

import pytest

from reports.evaluation.scores import METRICS, every, exact, instructions, rouge_l, unscored

UUID = "54e4d20f-1c1c-4c1f-9d27-0b1d0b1d0b1d"


@pytest.mark.parametrize(
    ("answer", "text", "score"),
    [
        ("4821", "The special number of Oslo is 4821.", 1.0),
        ("4821", "It is 4822.", 0.0),
        ("4821", "", 0.0),
        ("4821", "First 4821, no: 17", 0.0),  # the last number stated counts
        ("1024", "It is 1,024.0", 1.0),
        ("18", "3 * 6 = 20\n#### 18", 1.0),
        ("the history of bread", "We spoke of The History of  Bread first.", 1.0),
        ("the history of bread", "bread", 0.0),
        (UUID, f"The value is {UUID.upper()}", 1.0),
        (UUID, UUID[:-1], 0.0),
    ],
)
def test_an_exact_answer_is_right_or_wrong(answer, text, score):
    assert exact(text, (answer,), {}) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Lima 12, Oslo 34 and Riga 56", 1.0),
        ("12 and 34", 2 / 3),
        ("12, 12, 12", 1 / 3),
        ("1234 56", 1 / 3),  # whole words: 1234 is neither 12 nor 34
        ("", 0.0),
    ],
)
def test_several_answers_score_by_share(text, score):
    assert every(text, ("12", "34", "56"), {}) == pytest.approx(score)


def test_rouge_takes_the_best_reference():
    references = ("the cat sat on the mat", "dogs run")
    assert rouge_l("the cat sat on the mat", references, {}) == 1.0
    assert rouge_l("dogs run", references, {}) == 1.0
    assert rouge_l("zebra", references, {}) == 0.0
    assert rouge_l("", references, {}) == 0.0
    # Longest common subsequence "the cat on the mat": precision 1, recall 5/6.
    found = rouge_l("the cat on the mat", references[:1], {})
    assert found == pytest.approx(2 * 1.0 * (5 / 6) / (1 + 5 / 6))


def test_instructions_score_by_share_followed():
    asked = {"instructions": [["punctuation:no_comma", {}], ["startend:quotation", {}]]}
    assert instructions('"plain"', (), asked) == 1.0
    assert instructions("plain", (), asked) == 0.5
    assert instructions("a, b", (), asked) == 0.0


def test_a_task_without_answer_has_no_score():
    assert math.isnan(unscored("anything", (), {}))


@pytest.mark.parametrize("metric", ["exact", "every", "rouge_l"])
def test_a_metric_without_answers_is_refused(metric):
    with pytest.raises(ValueError, match=r"needs"):
        METRICS[metric]("text", (), {})
