"""Repetition and diversity on sequences whose measures are known by hand."""

from __future__ import annotations

import pytest

from reports.evaluation.diversity import distinct_n, repeated_share, self_bleu


def test_distinct_n_counts_different_n_grams():
    assert distinct_n([1, 2, 3, 4], 2) == 1.0
    assert distinct_n([1, 1, 1, 1], 2) == pytest.approx(1 / 3)
    assert distinct_n([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct_n([1], 2) is None
    with pytest.raises(ValueError, match="n must be >= 1"):
        distinct_n([1], 0)


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3, 4], 0.0),
        ([7, 7, 7, 7], 1.0),  # the two occurrences overlap
        ([1, 2, 3, 1, 2, 3], 3 / 5),
        ([1, 2, 3, 4, 2, 3], 2 / 5),
        ([1, 2], 0.0),
        ([1], None),
        ([], None),
    ],
)
def test_the_longest_repetition_is_found(tokens, share):
    assert repeated_share(tokens) == (None if share is None else pytest.approx(share))


def test_self_bleu_is_one_for_equal_texts_and_low_for_others():
    same = "the old mill stands by the river"
    assert self_bleu([same, same]) == pytest.approx(1.0)
    assert self_bleu([same, "completely different words appear here today instead"]) < 0.1
    assert self_bleu([same, ""]) is None
    assert self_bleu([]) is None
