"""The variance study: matched means, known answers, and a law that cannot help."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from controllers.temperature import EntropyFeedback, FeedforwardNewton, FixedTemperature
from reports.committed_laws import variance as section
from reports.figures.variance import variance
from reports.studies.variance import (
    Sequences,
    _compare,
    _entropy,
    lag_one,
    recorded,
    run_law,
)
from reports.variance_commands import variance_text
from simulator.defaults import TRACE
from simulator.model import TraceModel
from traces.store import Trace, read_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read_trace(TRACE)


@pytest.fixture(scope="module")
def model(trace: Trace) -> TraceModel:
    return TraceModel.of(trace)


@pytest.fixture(scope="module")
def sequences(trace: Trace) -> Sequences:
    return Sequences.of(trace)


def test_every_sequence_of_two_tokens_is_there(trace: Trace, sequences: Sequences) -> None:
    lengths = np.diff(np.asarray(trace.slices), axis=1).ravel()
    assert sequences.live.sum() == lengths[lengths >= 2].sum()
    assert sequences.live.sum(axis=1).tolist() == lengths[lengths >= 2].tolist()


def test_a_fixed_temperature_is_its_own_match(model: TraceModel, sequences: Sequences) -> None:
    found = _compare(
        model, sequences, sequences.resampled(0), "fixed", FixedTemperature(), target=1.0
    )
    assert found.fixed_temperature == pytest.approx(0.8, abs=1e-6)
    assert found.ratio.mean == pytest.approx(1.0, abs=1e-6)
    assert found.ratio.half == pytest.approx(0.0, abs=1e-5)


def test_laws_and_their_matches_have_equal_mean_entropy(
    model: TraceModel, sequences: Sequences
) -> None:
    law = EntropyFeedback()
    found = _compare(model, sequences, sequences.resampled(0), "feedback", law, target=1.5)
    x = np.full(sequences.rows.shape, np.log(found.fixed_temperature))
    h = _entropy(model, sequences, x)[sequences.live]
    assert h.mean() == pytest.approx(found.mean_nats, abs=1e-6)


def test_newton_steadies_entropy_and_feedback_does_much_less(
    trace: Trace, model: TraceModel
) -> None:
    rows = {row.law: row for row in recorded(trace, model, targets=(1.0,))}
    newton, feedback = rows["newton"].ratio, rows["feedback"].ratio
    assert newton.half is not None
    assert newton.mean + newton.half < 0.6
    assert feedback.mean > 0.8


def test_a_law_runs_along_each_sequence_alone(model: TraceModel, sequences: Sequences) -> None:
    law = EntropyFeedback(gain=0.1)
    together = run_law(model, sequences.rows[:8], law, 1.0, 0.0)
    alone = run_law(model, sequences.rows[3:4], law, 1.0, 0.0)
    # Not bitwise: the curve table multiplies matrices, whose rounding depends on the batch.
    np.testing.assert_allclose(together[3:4], alone, atol=1e-9)


def test_commands_use_the_current_token_only_for_same_step_laws(
    model: TraceModel, sequences: Sequences
) -> None:
    rows = sequences.rows[:4].copy()
    changed = rows.copy()
    changed[:, :-1] = np.where(rows[:, :-1] >= 0, rows[0, 0], -1)
    law = FeedforwardNewton()
    last = rows.shape[1] - 1
    a, b = (run_law(model, r, law, 1.0, 0.0)[:, last] for r in (rows, changed))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_lag_one_recovers_the_correlation_of_a_known_process(rho: float) -> None:
    rng = np.random.default_rng(0)
    h = np.zeros((40, 2000))
    for t in range(1, h.shape[1]):
        h[:, t] = rho * h[:, t - 1] + rng.normal(size=40)
    assert lag_one(h, np.ones(h.shape, bool)) == pytest.approx(rho, abs=0.02)


def test_the_figure_the_table_and_the_section_draw_with_and_without_live_runs() -> None:
    pair = {"mean": 0.9, "ci95": 0.1}
    row = {
        "law": "feedback", "target_nats": 1.0, "tokens": 10, "mean_entropy_nats": 1.0,
        "fixed_temperature": 0.7, "variance_nats2": 0.5, "fixed_variance_nats2": 0.6,
        "ratio": pair, "lag1_correlation": 0.2,
    }  # fmt: skip
    live = {
        "law": "feedback", "target_nats": 1.0, "ratio": pair, "fixed_temperature": pair,
        "mean_entropy_nats": pair,
        "variance_nats2": pair, "lag1_correlation": pair, "nll_nats": pair,
    }  # fmt: skip
    for runs in ([], [live]):
        assert len(variance([row], runs, footer="x").axes) == 2
        text = variance_text({"recorded": [row], "live": runs})
        assert ("Live" in text) == bool(runs)
        assert "0.900 ±0.100" in text
        document = {"recorded": [row], "live": [live] if runs else []}
        document |= {"model": "m", "seeds": [0], "max_tokens": 2, "command": "entropic variance"}
        part = section(SimpleNamespace(results={"variance": document}))
        assert part is not None
        assert part.figure is not None
        assert ("Live:" in part.html) == bool(runs)
    assert section(SimpleNamespace(results={})) is None
