"""What a stretch gathers ahead must be what its tables and laws say row by row."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Residual, TraceExecutor, TraceModel
from simulator.stretch_shares import Kept, Pruning

PROMPT = 40


def test_a_stretch_reads_shares_and_residuals_as_their_tables_do(
    model: TraceModel, residual: Residual
) -> None:
    rng, pruning = np.random.default_rng(1), Pruning(model.shares, residual)
    levels = model.shares.coverages
    rows = rng.integers(0, len(model.h_cal), (40, 9))
    kept = Kept(pruning, rows)
    for step in range(len(rows)):
        lanes = rng.uniform(levels[0] - 0.1, levels[-1], 9)
        if step % 3:
            lanes[:2] = levels[step % len(levels)], 1.0  # on a level, and dense
        normals = rng.normal(size=9)
        for _ in range(2):  # at new coverages, and at those of the step before
            share, factor, below = kept.read(lanes.tolist(), normals, step)
            np.testing.assert_array_equal(share, model.shares.share(rows[step], lanes))
            np.testing.assert_array_equal(factor, residual.factor(lanes, share, normals))
            assert below == model.shares.count_below(lanes)


def test_a_coverage_that_was_not_recorded_is_refused(model: TraceModel, residual: Residual) -> None:
    kept = Kept(Pruning(model.shares, residual), np.zeros((1, 2), np.intp))
    with pytest.raises(ValueError, match=r"coverage must be <= .* got 0\.9999"):
        kept.read([0.9, 0.9999], np.zeros(2), 0)


def plan_of(step: int, *lanes: tuple[int, int, float]) -> Plan:
    rows = [Row(i, PROMPT + t - 1, 1, True, coverage, False) for i, t, coverage in lanes]
    return Plan(step, tuple(rows))


@pytest.mark.parametrize("name", ["full", "seed", "best"])
def test_company_and_interruptions_change_no_trajectory(
    name: str, model: TraceModel, residual: Residual, step_law: StepLaw
) -> None:
    def executor() -> TraceExecutor:
        made = TraceExecutor(model, get_preset(name), step_law, residual=residual)
        for i in range(3):
            made.add(Request(request_id=i, prompt_tokens=PROMPT, max_tokens=90), i, 90)
        return made

    coverage = {i: [0.95 + 0.01 * ((t + i) % 5) for t in range(60)] for i in range(3)}
    alone = {}
    for i in range(3):
        made = executor()
        plans = [plan_of(t, (i, t, coverage[i][t])) for t in range(60)]
        alone[i] = [made.execute(plan, {}) for plan in plans]
    made, done, rng = executor(), dict.fromkeys(range(3), 0), np.random.default_rng(0)
    for step in range(400):
        members = [i for i in done if done[i] < 60 and rng.random() < 0.95]
        if not members:
            made.execute(Plan(step, (Row(7, 0, 16, False, 1.0, False),)), {})
            continue
        plan = plan_of(step, *((i, done[i], coverage[i][done[i]]) for i in members))
        found = made.execute(plan, {})
        for lane, i in enumerate(members):
            expected = alone[i][done[i]]
            for field in ("commands", "h_applied", "surprisal"):
                assert getattr(found, field)[lane] == getattr(expected, field)[0]
            for field, column in found.signals._asdict().items():
                assert column[lane] == getattr(expected.signals, field)[0]
            assert found.tokens[lane] == expected.tokens[0]
            done[i] += 1
        reads = sum(alone[i][done[i] - 1].page_units_read for i in members)
        assert found.page_units_read == reads
    assert done == dict.fromkeys(range(3), 60)
