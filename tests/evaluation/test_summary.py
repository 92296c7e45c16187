"""Summaries of rows made by hand, with known means and verdicts."""

from __future__ import annotations

import math

import pytest

from reports.evaluation.clustered import ratio
from reports.evaluation.summary import forced_summary, free_summary, meets_bar, paired_scores
from reports.evaluation.texts import bar_text, forced_text, free_text, interval


def numbers(kl: list[float], *, agreed: int, nll: float = 5.0, read: int = 40) -> dict:
    return {
        "kl_nats": kl, "agreed": agreed, "nll_nats": nll, "dense_nll_nats": 4.0,
        "pruned_tokens": len(kl), "coverage": 0.9 * len(kl), "looked_at": 1, "dropped": 0.08,
        "asked_dropped": 0.1, "units_read": read, "units_dense": 100, "units_scored": 100,
    }  # fmt: skip


def forced(document: str, found: dict, prompt_tokens: int = 3000) -> dict:
    return {
        "kind": "forced", "text": "sampled", "task": "kv", "document": document,
        "prompt_tokens": prompt_tokens, "tokens": 3, "settings": {"p": found},
    }  # fmt: skip


def free(arm: str, document: str, seed: int, score: float | None, text: str = "a b") -> dict:
    return {
        "kind": "free", "task": "kv", "document": document, "arm": arm, "seed": seed,
        "prompt_tokens": 9, "text": text, "reason": "stop", "tokens": 4, "score": score,
        "distinct_2": 1.0, "distinct_3": None, "repeated_share": 0.0, "temperature": 0.8,
        "coverage": None, "entropy_nats": 1.0, "nll_nats": 1.0,
    }  # fmt: skip


def test_a_ratio_weighs_tokens_and_draws_documents():
    found = ratio(["a", "b"], [1.0, 3.0], [1.0, 3.0])
    assert (found.mean, found.half) == (1.0, 0.0)  # equal ratios: no spread
    found = ratio(["a", "a", "b"], [0.0, 1.0, 1.0])
    assert found.mean == pytest.approx(2 / 3)
    assert ratio(["a", "a"], [0.0, 1.0]).half is None  # one document cannot tell
    assert ratio([], []) is None
    assert ratio(["a"], [0.0], [0.0]) is None


def test_an_interval_covers_the_mean_of_its_population_and_narrows():
    import numpy as np

    rng = np.random.default_rng(0)
    halves, hits = [], 0
    for _ in range(60):
        values = rng.normal(1.0, 1.0, 30)
        found = ratio([str(i) for i in range(30)], values.tolist())
        halves.append(found.half)
        hits += abs(found.mean - 1.0) <= found.half
    assert 52 <= hits <= 60  # 95 % of 60 is 57
    assert np.mean(halves) == pytest.approx(2.045 / math.sqrt(30), rel=0.1)


def test_rows_of_one_document_count_once():
    values = [0.0, 1.0] * 20
    spread = ratio([str(i) for i in range(40)], values)
    tied = ratio([str(i // 20) for i in range(40)], values)
    assert tied.half == pytest.approx(0.0)  # both documents have the mean 1/2
    assert spread.half > 0.1


def test_forced_rows_give_token_means_and_bytes_with_metadata():
    rows = [
        forced("a", numbers([0.0, 0.2], agreed=2)),
        forced("b", numbers([0.4], agreed=0, nll=4.0, read=20)),
    ]
    (entry,) = forced_summary(rows, {"p": 1 / 16})
    assert entry["tokens"] == 3
    assert entry["kl_nats"]["mean"] == pytest.approx(0.2)
    assert entry["kl_nats"]["max"] == 0.4
    assert entry["top1_agreement"]["mean"] == pytest.approx(2 / 3)
    assert entry["nll_change_nats"]["mean"] == pytest.approx(1.0 / 3)
    assert entry["kv_pages_kept_share"]["mean"] == pytest.approx(0.3)
    assert entry["kv_bytes_share"]["mean"] == pytest.approx(0.3 + 1 / 16)
    assert entry["coverage_asked"]["mean"] == pytest.approx(0.9)
    assert entry["coverage_true"]["mean"] == pytest.approx(0.92)
    (free_of_charge,) = forced_summary(rows, {"p": 0.0})
    assert free_of_charge["kv_bytes_share"]["mean"] == pytest.approx(0.3)
    assert "0.3625" not in forced_text([entry])
    assert "2 documents" in forced_text([entry])


@pytest.mark.parametrize(
    ("kl", "agreed", "read", "prompt", "verdict"),
    [
        (0.005, 600, 30, 3000, "met"),
        (0.02, 600, 30, 3000, "missed"),
        (0.005, 560, 30, 3000, "missed"),
        (0.005, 600, 34, 3000, "missed"),  # .34 and 1/16 of metadata are over .40
        (0.005, 600, 30, 2999, "too little"),
    ],
)
def test_the_bar_is_judged_on_every_count(kl, agreed, read, prompt, verdict):
    rows = [forced(d, numbers([kl] * 600, agreed=agreed, read=read), prompt) for d in "ab"]
    (entry,) = forced_summary(rows, {"p": 1 / 16})
    assert meets_bar(entry) == verdict
    assert ("bar met" in bar_text([entry])) == (verdict == "met")


def test_few_tokens_give_no_verdict():
    rows = [forced("a", numbers([0.0] * 999, agreed=999, read=10))]
    assert meets_bar(forced_summary(rows, {"p": 1 / 16})[0]) == "too little"


def test_a_reply_too_short_to_score_is_left_out():
    rows = [forced("a", numbers([], agreed=0)), forced("b", numbers([0.1], agreed=1))]
    (entry,) = forced_summary(rows, {"p": 1 / 16})
    assert (entry["documents"], entry["tokens"]) == (1, 1)
    assert forced_summary(rows[:1], {"p": 1 / 16}) == []


def test_scores_are_paired_and_a_weak_baseline_is_not_judged():
    rows = []
    for document, base, other in (("a", 1.0, 1.0), ("b", 1.0, 0.0), ("c", 1.0, 1.0)):
        rows += [free("baseline", document, 0, base), free("full", document, 0, other)]
    rows.append(free("full", "d", 0, 0.0))  # no partner: left out
    (pair,) = paired_scores(rows, "baseline", "full")
    assert (pair["pairs"], pair["baseline_score"], pair["judged"]) == (3, 1.0, True)
    assert pair["change"]["mean"] == pytest.approx(-1 / 3)
    assert not pair["enough"]
    weak = [row | {"score": row["score"] / 2} for row in rows]
    (pair,) = paired_scores(weak, "baseline", "full")
    assert not pair["judged"]
    assert "under 0.6: not judged" in free_text(free_summary(rows), [pair])
    assert paired_scores([free("full", "a", 0, None)], "baseline", "full") == []


def test_free_rows_give_diversity_over_the_seeds_of_a_prompt():
    words = "one two three four five six"
    rows = [free("baseline", "a", seed, 1.0, words) for seed in range(2)]
    rows += [free("baseline", "b", seed, 0.0, words) for seed in range(2)]
    (entry,) = free_summary(rows)
    assert entry["self_bleu"]["mean"] == pytest.approx(1.0)
    assert entry["score"]["mean"] == 0.5
    assert entry["distinct_3"] == {"mean": None, "ci95": None}
    assert (entry["replies"], entry["documents"], entry["stopped_share"]) == (4, 2, 1.0)


def test_an_interval_without_width_shows_its_mean_alone():
    assert interval({"mean": None, "ci95": None}) == "-"
    assert interval({"mean": 0.5, "ci95": None}) == "0.500"
    assert interval({"mean": 0.5, "ci95": 0.1}, 1, sign=True) == "+0.5 ±0.1"
