"""Arrivals joined to recordings: near in prompt length, seeded, honest about what is stretched."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.join import Recordings, join_line, joined_workload
from simulator.run import run_workload
from simulator.workload import Asking
from traces.arrivals import Arrivals, Labels
from traces.prefixes import Prefixes


def arrivals(n: int = 60, *, longest: int = 90, **more: object) -> Arrivals:
    rng = np.random.default_rng(2)
    return Arrivals(
        times_s=np.arange(n) * 0.05,
        prompt_tokens=rng.integers(10, longest, n),
        output_tokens=rng.integers(1, 40, n),
        source="made up",
        **more,
    )


def test_requests_have_the_lengths_and_times_of_the_arrivals(trace):
    source = arrivals()
    made = joined_workload(trace, source, seed=1)
    assert made.column("prompt_tokens").tolist() == source.prompt_tokens.tolist()
    assert made.column("output_tokens").tolist() == source.output_tokens.tolist()
    np.testing.assert_allclose(made.column("arrival_ns") / 1e9, source.times_s)
    assert set(made.column("max_tokens")) == {source.output_tokens.max()}


def test_equal_seeds_join_alike_and_others_do_not(trace):
    joins = [joined_workload(trace, arrivals(), seed=s).column("trace_index") for s in (1, 1, 2)]
    assert joins[0].tolist() == joins[1].tolist() != joins[2].tolist()


def test_the_rate_does_not_change_who_answers(trace):
    slow = arrivals()
    fast = dataclasses.replace(slow, times_s=slow.times_s / 7)
    joins = [joined_workload(trace, a, seed=1).column("trace_index") for a in (slow, fast)]
    assert joins[0].tolist() == joins[1].tolist()


@given(
    recorded=st.lists(st.integers(1, 300), min_size=1, max_size=30),
    wanted=st.integers(1, 1000),
    nearest=st.integers(1, 12),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_no_recording_that_was_passed_over_is_nearer(recorded, wanted, nearest, draw):
    recorded = sorted(recorded)
    found = Recordings(
        index=np.arange(len(recorded)),
        log_prompt=np.log(recorded),
        prompt_tokens=np.array(recorded),
        output_tokens=np.ones(len(recorded), np.int64),
        classes=Labels.one("x", len(recorded)),
    )
    chosen = found.near(np.array([wanted]), np.array([draw]), nearest)[0]
    distance = np.abs(np.log(recorded) - np.log(wanted))
    allowed = np.sort(distance)[min(nearest, len(recorded)) - 1]
    assert distance[chosen] <= allowed + 1e-12


def test_every_near_recording_gets_its_turn(trace):
    n = 400
    alike = Arrivals(
        times_s=np.arange(n, dtype=float),
        prompt_tokens=np.full(n, 50),
        output_tokens=np.full(n, 5),
        source="x",
    )
    drawn = joined_workload(trace, alike, seed=3, nearest=4).column("trace_index")
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 60


def test_a_request_of_a_recorded_class_is_answered_within_it(trace):
    labels = Labels.of(["code", "chat"] * 30)
    made = joined_workload(trace, arrivals(classes=labels), seed=1, nearest=3)
    classes = {r.request: r.task_class for r in trace.requests}
    answers = [classes[index] for index in made.column("trace_index").tolist()]
    assert set(answers[::2]) == {"code"}
    assert set(answers[1::2]) == set(classes.values())
    assert made.caveats["join_requests_of_class"] == 30
    assert [a.request.task_class for a in made.arrivals[:2]] == ["code", "chat"]


def test_what_is_stretched_is_counted(trace):
    source = arrivals()
    made = joined_workload(trace, source, seed=1)
    recorded = {r.request: r.output_tokens for r in trace.requests}
    beyond = sum(
        max(0, a.output_tokens - recorded[a.trace_index]) for a in made.arrivals
    )  # fmt: skip
    prompts = [r.prompt_tokens for r in trace.requests]
    outside = (source.prompt_tokens < min(prompts)) | (source.prompt_tokens > max(prompts))
    assert made.caveats["join_tokens_beyond_recordings"] == beyond > 0
    assert made.caveats["join_prompts_outside_recorded"] == outside.sum() > 0
    assert made.caveats["join_tokens"] == source.output_tokens.sum()
    said = join_line(made.caveats)
    assert f"{beyond / source.output_tokens.sum():.1%} of their tokens" in said
    assert "cut" not in said


def test_long_requests_are_cut_to_fit_and_counted(trace):
    source = arrivals(longest=200)
    made = joined_workload(trace, source, seed=1, max_total=100)
    prompts, caps = made.column("prompt_tokens"), made.column("max_tokens")
    long = source.prompt_tokens + source.output_tokens > 100
    assert ((prompts + caps) <= 100).all()
    assert (caps >= made.column("output_tokens")).all()
    assert (prompts[~long] == source.prompt_tokens[~long]).all()
    assert made.caveats["join_requests_cut"] == long.sum() > 0
    assert "were cut to fit" in join_line(made.caveats)


def test_answers_longer_than_the_cap_are_cut_by_the_cap(trace):
    made = joined_workload(trace, arrivals(), seed=1, asking=Asking(max_tokens=7), max_total=60)
    assert (made.column("max_tokens") <= 7).all()
    assert made.caveats["join_tokens"] == np.minimum(arrivals().output_tokens, 7).sum()


def test_a_prediction_is_the_mean_of_the_others_of_the_class(trace):
    source = arrivals(4, classes=Labels.of(["a", "a", "a", "b"]))
    made = joined_workload(trace, source, seed=1)
    outputs = source.output_tokens
    assert made.arrivals[0].request.predicted_tokens == max(1, round(outputs[1:3].mean()))
    assert made.arrivals[3].request.predicted_tokens is None


def test_tenants_and_classes_come_from_the_arrivals_where_they_have_them(trace):
    labels = Labels.of(["ann", "bob"] * 30)
    named = joined_workload(trace, arrivals(tenants=labels), seed=1).arrivals
    assert [a.request.client for a in named[:2]] == ["ann", "bob"]
    plain = joined_workload(trace, arrivals(), seed=1).arrivals
    classes = {r.request: r.task_class for r in trace.requests}
    for arrival in plain:
        assert arrival.request.client == classes[arrival.trace_index]
        assert arrival.request.task_class == classes[arrival.trace_index]


def test_users_give_up_as_often_as_asked(trace):
    asking = Asking(cancel_share=0.5, patience_s=2.0)
    made = joined_workload(trace, arrivals(1000), seed=1, asking=asking)
    gone = made.column("cancel_ns")
    waited_s = (gone - made.column("arrival_ns"))[gone >= 0] / 1e9
    assert len(waited_s) == pytest.approx(500, abs=80)
    assert waited_s.mean() == pytest.approx(2.0, rel=0.2)


def test_prompts_that_begin_alike_share_pages(trace):
    prefixes = Prefixes.of([[i % 2] for i in range(60)], 32)
    source = dataclasses.replace(arrivals(longest=11), prefixes=prefixes)
    source = dataclasses.replace(source, prompt_tokens=source.prompt_tokens + 32)
    made = joined_workload(trace, source, seed=1).arrivals
    assert len(made[0].page_hashes) == made[0].request.prompt_tokens // 16
    assert made[0].page_hashes[:2] == made[2].page_hashes[:2] != made[1].page_hashes[:2]
    plain = joined_workload(trace, source, seed=1, share_prefixes=False).arrivals
    assert plain[0].page_hashes == ()


def test_a_joined_workload_is_served_to_the_end(trace, model, residual, configure):
    made = joined_workload(trace, arrivals(), seed=1)
    result = run_workload(model, residual, made, configure("full"))
    rows = result.ledger.requests
    order = np.argsort(rows["request_id"])
    assert rows["tokens"][order].tolist() == arrivals().output_tokens.tolist()
    assert rows["arrival_ns"][order].tolist() == made.column("arrival_ns").tolist()


def test_arrivals_without_lengths_cannot_be_joined(trace):
    bare = Arrivals(times_s=np.zeros(1), prompt_tokens=None, output_tokens=None, source="bare")
    with pytest.raises(ValueError, match="a join needs lengths; got bare"):
        joined_workload(trace, bare, seed=0)


def test_a_request_longer_than_the_whole_pool_is_refused_with_its_lengths(trace):
    source = arrivals(longest=200)
    needed = source.prompt_tokens + source.output_tokens
    at = int(needed.argmax())
    with pytest.raises(ValueError, match=r"longer than the KV pool, 100 tokens") as refused:
        joined_workload(trace, source, seed=1, room=100)
    assert f"request {at}: prompt {source.prompt_tokens[at]}" in str(refused.value)
    made = joined_workload(trace, source, seed=1, room=int(needed.max()))
    assert ((made.column("prompt_tokens") + made.column("max_tokens")) <= needed.max()).all()
    assert made.caveats["join_requests_cut"] == 0
