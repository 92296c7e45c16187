"""The estimator study on made-up rows, where the answers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from controllers.entropy import entropy_varentropy
from reports.committed_laws import estimators as section
from reports.estimator_commands import estimators_text
from reports.studies.estimators import (
    Rows,
    _steps,
    _temperatures,
    compare,
    entropy_varentropy_rows,
    top_k,
)


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(0)
    lengths = (5, 9, 3, 7)
    logits = rng.normal(0.0, 2.5, (sum(lengths), 60)).astype(np.float32)
    return Rows(logits, np.repeat(np.arange(4), lengths), np.array([0, 1, 1, 2]))


def test_with_the_whole_vocabulary_every_estimator_is_exact_and_decides_alike(rows: Rows) -> None:
    for row in compare(rows, [60], seed=0):
        assert row["worst_nats"] == pytest.approx(0.0, abs=1e-5)
        assert row["coverage_differs_share"]["mean"] == 0.0
        assert row["ln_t_drift"]["mean"] == pytest.approx(0.0, abs=1e-6)


def test_a_small_k_shows_the_signs_of_the_bias_and_of_what_it_does_to_temperature(
    rows: Rows,
) -> None:
    found = {row["estimator"]: row for row in compare(rows, [4], seed=0)}
    # Too little entropy reported makes the corrected law heat, and the reverse.
    for name, sign in (("truncated", -1.0), ("tail_corrected", 1.0)):
        assert sign * found[name]["bias_nats"]["mean"] > 0.0
        assert sign * found[name]["ln_t_bias"]["mean"] < 0.0
        assert found[name]["inside_interval_share"] == 1.0
    assert found["midpoint"]["rms_nats"] < found["truncated"]["rms_nats"]


def test_top_k_at_a_temperature_is_the_head_of_the_tempered_row(rows: Rows) -> None:
    x = 0.3
    top = top_k(rows.logits, x, 60)
    h, _ = entropy_varentropy(rows.logits, x)
    np.testing.assert_allclose(-(np.exp(top.logp) * top.logp).sum(axis=1), h, atol=1e-6)


def test_chunks_do_not_change_the_exact_entropy(rows: Rows) -> None:
    whole = entropy_varentropy(rows.logits, 0.2)
    for chunk in (1, 5, 100):
        for got, want in zip(entropy_varentropy_rows(rows, 0.2, chunk), whole, strict=True):
            np.testing.assert_allclose(got, want)


def test_steps_visit_every_row_once_in_order_of_position(rows: Rows) -> None:
    visited = np.concatenate([here for here, _ in _steps(rows)])
    assert sorted(visited.tolist()) == list(range(len(rows.logits)))
    position = np.empty(len(rows.logits))
    for here, signal in _steps(rows):
        position[here] = signal.position
    np.testing.assert_array_equal(position, [*range(5), *range(9), *range(3), *range(7)])


def test_a_sequence_steers_as_if_it_ran_alone(rows: Rows) -> None:
    together = _temperatures(rows, ("truncated", 6))
    for sequence in range(4):
        mine = rows.sequence == sequence
        alone = Rows(rows.logits[mine], np.zeros(mine.sum(), int), np.zeros(1, int))
        np.testing.assert_allclose(_temperatures(alone, ("truncated", 6)), together[mine])


def test_the_text_has_a_line_per_estimator_cost_and_calibration(rows: Rows) -> None:
    document = {
        "rows": 24,
        "model": "m",
        "vocabulary": 60,
        "prompts": 3,
        "estimators": compare(rows, [4, 8], seed=0),
        "costs": [
            {
                "rows": 1,
                "k": 4,
                "exact_us_per_row": 2.0,
                "top_k_us_per_row": 4.0,
                "lse_us_per_row": 1.0,
                "exact_over_top_k": 0.5,
            }
        ],
        "calibration": {
            "t_cal": 1.1,
            "held_out_tokens": 10,
            "nll_before_nats": 2.0,
            "nll_after_nats": 1.9,
            "entropy_error_before_nats": 0.2,
            "entropy_error_after_nats": 0.0,
        },
    }
    text = estimators_text(document)
    assert text.count("tail_corrected") == 2
    assert "T_cal = 1.100" in text
    part = section(SimpleNamespace(results={"estimators": document}))
    assert part is not None
    assert part.html.count("tail_corrected") == 2
    assert "T_cal = 1.100" in part.html
    assert section(SimpleNamespace(results={})) is None
