"""The order of a step, lanes left alone, masks, rollback, and what every sampler promises."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from controllers.compose import Gated
from controllers.core import put_lanes, take_lanes
from controllers.entropy import entropy_varentropy
from controllers.samplers import (
    AdaptiveP,
    DeadBeat,
    DynaTemp,
    Edt,
    EntropixTempTune,
    MinP,
    MirostatV1,
    MirostatV2,
    Pipeline,
    Sampler,
    Tempered,
    TopK,
    TopNSigma,
    TopP,
    rows,
)
from controllers.serving.lane_table import LaneTable
from controllers.serving.request import Request
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback, FeedforwardNewton
from tests.samplers.plants import leaves, to_torch
from tests.strategies import Float64, token_signal

SAMPLERS: list[Sampler] = [
    Tempered(),
    Tempered(law=EntropyFeedback()),
    Tempered(law=Gated(law=SmoothedFeedback())),
    DeadBeat(),
    EntropixTempTune(),
    DynaTemp(reach=0.5),
    Edt(),
    MinP(),
    TopNSigma(),
    TopP(),
    TopK(k=5),
    MirostatV1(),
    MirostatV1.llama_cpp(),
    MirostatV2(),
    MirostatV2.llama_cpp(),
    AdaptiveP(),
    Pipeline(temperature=Tempered(law=FeedforwardNewton()), stages=(TopP(), MinP())),
    Pipeline(temperature=DeadBeat(), stages=(TopK(k=30), MirostatV2(), AdaptiveP(target=0.3))),
]
every = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: repr(s)[:60])
B, N = 6, 64


def _batch(steps: int = 4, dtype: type = np.float64) -> list[tuple[Float64, Any]]:
    """Rows and signals: ties, masks and a needle; one lane off, one capped."""
    rng = np.random.default_rng(5)
    lane = token_signal(
        B,
        dtype,
        target_nats=rng.uniform(1.0, 3.0, B),
        x_user=rng.uniform(-0.5, 0.3, B),
        enabled=np.arange(B) != 2,
    )
    lane.x_cap[3] = lane.x_user[3]
    out = []
    for _ in range(steps):
        row = rng.normal(0.0, 2.0, (B, N))
        row[0] = np.round(row[0])
        row[1, rng.random(N) < 0.7] = -np.inf
        row[1, 9] = 1.0
        row[4, 11] = 40.0
        out.append((row.astype(dtype), lane))
    return out


def _run(sampler: Sampler, batch: list[tuple[Any, Any]]) -> tuple[list[Any], Any]:
    """Accept the most likely token left each step; return what was shaped and the last state."""
    state, shaped = sampler.init(batch[0][1]), []
    for row, lane in batch:
        shaped.append(sampler.shape(state, row, lane))
        state = sampler.accept(state, shaped[-1], shaped[-1].logits.argmax(-1))
    return shaped, state


@every
def test_numpy_and_torch_agree_to_a_millionth(sampler: Sampler) -> None:
    ours, mine = _run(sampler, _batch())
    theirs, other = _run(sampler, [(to_torch(row), to_torch(lane)) for row, lane in _batch()])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.logits.numpy(), a.logits, atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(b.x.numpy(), a.x, atol=1e-6)
    for a, b in zip(leaves(mine), leaves(other), strict=True):
        np.testing.assert_allclose(b.numpy(), a, atol=1e-6, rtol=1e-6)


@every
def test_float32_stays_float32_and_close(sampler: Sampler) -> None:
    wide, _ = _run(sampler, _batch(1))
    narrow, state = _run(sampler, _batch(1, np.float32))
    assert narrow[0].logits.dtype == narrow[0].x.dtype == np.float32
    assert all(leaf.dtype == np.float32 for leaf in leaves(state))
    np.testing.assert_allclose(narrow[0].x, wide[0].x, atol=2e-4)


@every
def test_samplers_run_where_no_value_can_be_read(sampler: Sampler) -> None:
    row, lane = _batch(1, np.float32)[0]
    shaped, state = _run(sampler, [(to_torch(row, "meta"), to_torch(lane, "meta"))] * 2)
    assert shaped[-1].logits.device.type == "meta"
    assert all(leaf.device.type == "meta" for leaf in leaves(state))


@every
def test_shaping_and_accepting_leave_their_inputs_alone(sampler: Sampler) -> None:
    row, lane = _batch(1)[0]
    state = sampler.init(lane)
    before = copy.deepcopy((state, row, lane))
    first = sampler.shape(state, row, lane)
    memo = copy.deepcopy(first)
    sampler.accept(state, first, first.logits.argmax(-1))
    second = sampler.shape(state, row, lane)
    for a, b in zip(leaves((state, row, lane)), leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b, c in zip(leaves(tuple(first)), leaves(memo), leaves(tuple(second)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@every
def test_lanes_do_not_see_each_other(sampler: Sampler) -> None:
    together, state = _run(sampler, _batch())
    pick = np.array([4, 1])
    alone, few = _run(sampler, [(row[pick], take_lanes(lane, pick)) for row, lane in _batch()])
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(b.logits, a.logits[pick], atol=1e-12)
    for a, b in zip(leaves(state), leaves(few), strict=True):
        np.testing.assert_allclose(b, a[pick], atol=1e-12)


@every
def test_a_rejected_token_leaves_no_trace_and_a_snapshot_resumes(sampler: Sampler) -> None:
    batch = _batch(6)
    plain, _ = _run(sampler, batch)
    state = sampler.init(batch[0][1])
    for step, (row, lane) in enumerate(batch):
        tried = sampler.shape(state, row, lane)
        dropped = sampler.accept(state, tried, np.full(B, -1))  # rejected on every lane
        saved = take_lanes(dropped, np.arange(B))
        state = put_lanes(sampler.init(lane), np.arange(B), saved)
        shaped = sampler.shape(state, row, lane)
        np.testing.assert_array_equal(shaped.logits, plain[step].logits)
        state = sampler.accept(state, shaped, shaped.logits.argmax(-1))


@every
def test_masked_tokens_stay_masked_and_some_token_stays(sampler: Sampler) -> None:
    for shaped, (row, _) in zip(_run(sampler, _batch())[0], _batch(), strict=True):
        assert (shaped.logits[row == -np.inf] == -np.inf).all()
        assert np.isfinite(shaped.logits.max(-1)).all()
        assert not np.isnan(shaped.logits).any()


@every
def test_the_entropy_that_counts_is_that_of_the_masked_row(sampler: Sampler) -> None:
    full = np.random.default_rng(2).normal(0.0, 2.0, (1, N))
    allowed = np.arange(0, N, 5)
    lane = token_signal(1, target_nats=1.5)
    masked = np.full_like(full, -np.inf)
    masked[:, allowed] = full[:, allowed]
    long, short = (sampler.shape(sampler.init(lane), z, lane) for z in (masked, full[:, allowed]))
    np.testing.assert_allclose(long.x, short.x, atol=1e-9)
    if not isinstance(sampler, MirostatV1):  # its formula counts the masked alphabet too
        np.testing.assert_allclose(long.logits[:, allowed], short.logits, atol=1e-9)


def test_a_grammar_s_row_is_brought_to_the_set_point_over_its_own_tokens() -> None:
    row = np.random.default_rng(2).normal(0.0, 2.0, (1, N))
    row[:, 10:] = -np.inf
    lane = token_signal(1, target_nats=1.2)
    pipeline = Pipeline(temperature=DeadBeat())
    shaped = pipeline.shape(pipeline.init(lane), row, lane)
    h, _ = entropy_varentropy(row[:, :10], shaped.x)
    assert h[0] == pytest.approx(1.2, abs=2e-6)
    noise = np.linspace(0.0, 1.0, 500, endpoint=False)
    assert rows.draw(np.repeat(shaped.logits, 500, 0), noise).max() < 10


@pytest.mark.parametrize("sampler", SAMPLERS[-2:])
@pytest.mark.parametrize("x_user", [-20.0, -0.3, 0.5])
def test_lanes_out_of_control_are_sampled_at_the_user_s_temperature_untouched(
    sampler: Sampler, x_user: float
) -> None:
    row = np.random.default_rng(0).normal(0.0, 2.0, (2, N))
    lane = token_signal(2, x_user=x_user, enabled=np.array([0.0, 1.0]))
    state = sampler.init(lane)
    shaped = sampler.shape(state, row, lane)
    assert shaped.x[0] == x_user
    want = np.exp((row[0] - row[0].max()) / np.exp(x_user))
    np.testing.assert_allclose(np.exp(shaped.logits[0]), want, rtol=1e-9, atol=1e-300)
    assert (shaped.logits[1] == -np.inf).any()
    after = sampler.accept(state, shaped, shaped.logits.argmax(-1))
    for new, old in zip(leaves(after), leaves(state), strict=True):
        assert new[0] == old[0]


def test_temperature_comes_before_truncation() -> None:
    row, hot = np.random.default_rng(0).normal(0.0, 2.0, (1, N)), 0.5
    lane = token_signal(1, x_user=hot)
    pipeline = Pipeline(stages=(TopP(p=0.8),))
    got = pipeline.shape(pipeline.init(lane), row, lane).logits
    heated = rows.tempered(row, np.array([hot]))
    after = TopP(p=0.8).shape(TopP().init(lane), heated, lane).logits
    before = rows.tempered(TopP(p=0.8).shape(TopP().init(lane), row, lane).logits, np.array([hot]))
    np.testing.assert_array_equal(got > -np.inf, after > -np.inf)
    assert (got > -np.inf).sum() > (before > -np.inf).sum()


def test_a_wrapped_law_is_measured_where_it_asks_and_commands_as_it_would() -> None:
    law = FeedforwardNewton()
    row, lane = np.random.default_rng(0).normal(0.0, 2.0, (3, N)), token_signal(3, x_user=0.2)
    h, v = entropy_varentropy(row, law.x_in(law.init(lane)))
    _, want = law.update(law.init(lane), lane._replace(h_in=h, v_in=v))
    wrapped = Tempered(law=law)
    np.testing.assert_allclose(wrapped.shape(wrapped.init(lane), row, lane).x, want, atol=1e-12)


def test_the_one_sided_option_holds_through_every_temperature() -> None:
    row = np.random.default_rng(0).normal(0.0, 6.0, (1, N))
    lane = token_signal(1, x_user=-0.2, x_cap=-0.2, target_nats=4.0)
    for sampler in SAMPLERS[:7]:
        state = sampler.init(lane)
        for _ in range(20):
            shaped = sampler.shape(state, row, lane)
            assert shaped.x[0] <= -0.2
            state = sampler.accept(state, shaped, np.array([0]))


@pytest.mark.parametrize("law", [EntropyFeedback(), SmoothedFeedback(), FeedforwardNewton()])
def test_a_one_sided_request_is_never_heated_from_its_lane_to_its_token(law: Any) -> None:
    table = LaneTable(Gated(law=law), np.zeros(1, np.float32))
    for i in range(2):
        table.add(
            Request(
                request_id=i,
                prompt_tokens=4,
                max_tokens=9,
                temperature=0.7,
                target_nats=4.0,
                one_sided=i == 0,
            )
        )
    pipeline = Pipeline(temperature=Tempered(law=Gated(law=law)), stages=(MinP(),))
    _, lane = table.read(table.slots((0, 1)))
    state, row = pipeline.init(lane), np.random.default_rng(0).normal(0.0, 2.0, (2, N))
    for _ in range(30):
        shaped = pipeline.shape(state, row.astype(np.float32), lane)
        state = pipeline.accept(state, shaped, np.array([0, 0]))
    assert shaped.x[0] == lane.x_user[0] == np.float32(np.log(0.7))
    assert shaped.x[1] > lane.x_user[1]


def test_row_measures_agree_with_the_reference_in_both_libraries() -> None:
    row, lane = _batch(1)[0]
    want = entropy_varentropy(row, lane.x_user)
    ours = rows.entropy_varentropy(row, lane.x_user)
    theirs = rows.entropy_varentropy(to_torch(row), to_torch(lane.x_user))
    for a, b, c in zip(want, ours, theirs, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-10)
        np.testing.assert_allclose(c.numpy(), a, atol=1e-10)


def test_draws_follow_the_probabilities_and_never_a_token_without_mass() -> None:
    row = np.log(np.array([0.5, 1e-300, 0.3, 0.2]))
    row[1] = -np.inf
    noise = np.linspace(0.0, 1.0, 10_000, endpoint=False)
    token = rows.draw(np.repeat(row[None, :], 10_000, 0), noise)
    np.testing.assert_allclose(np.bincount(token, minlength=4) / 1e4, [0.5, 0, 0.3, 0.2], atol=2e-4)
    last = np.nextafter(1.0, 0.0)
    assert rows.draw(row[None, :], np.array([last]))[0] == 3
