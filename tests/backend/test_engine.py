"""The engine serving many requests: arrival, preemption, hanging up, switching off, refusing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from backend.engine import Submission
from controllers.entropy import entropy_varentropy
from controllers.presets import PRESETS
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request
from controllers.serving.runlog import replay_commands, replay_plans
from reports.studies.parity import count_events
from reports.studies.parity_run import stress
from tests.backend.tiny import (
    CONTEXT,
    ROOMY,
    engine,
    prompt_of,
    sparse,
    submission,
    tampered,
    tokens_of,
)

# Slots, pages and prompt chunks all bind.
TIGHT = EngineLimits(max_seqs=4, token_budget=24, n_pages=14, max_context=200)
TEMPERATURES = (0.0, 0.6, 1.0, 1.3)


def mixed(n: int = 8, max_tokens: int = 30, **fields: Any) -> list[Submission]:
    return [
        submission(i, 20 + 7 * i, max_tokens, temperature=TEMPERATURES[i % 4], **fields)
        for i in range(n)
    ]


def watch(made) -> list[tuple[Plan, Result]]:
    steps: list[tuple[Plan, Result]] = []
    made.on_step = lambda plan, result: steps.append((plan, result))
    return steps


@pytest.mark.parametrize("preset", ["baseline", "sampling"])
def test_preemption_and_chunks_leave_every_token_as_it_was(tiny, preset):
    calm, pressed = engine(tiny, preset), engine(tiny, preset, TIGHT)
    expected = tokens_of(calm, mixed())
    assert tokens_of(pressed, mixed()) == expected
    assert calm.ledger.requests["preemptions"].sum() == 0
    assert pressed.ledger.requests["preemptions"].sum() > 0
    assert all(len(tokens) > 5 for tokens in expected.values())
    pressed.loop.check()


def test_a_request_gets_the_same_tokens_alone_as_in_a_crowd(tiny):
    together = tokens_of(engine(tiny, "sampling"), mixed())
    for each in mixed()[:4]:
        alone = tokens_of(engine(tiny, "sampling"), [each])
        assert alone[each.request.request_id] == together[each.request.request_id]


@pytest.mark.parametrize("name", ["full", "seed", "best"])
def test_log_of_a_live_run_replays_without_a_difference(tiny, name):
    rows: list[dict[str, Any]] = []
    made = engine(tiny, stress(name), TIGHT, sink=rows.append)
    submissions = [*mixed(6, 60), submission(6, 90, 40, cancel_after_tokens=9)]
    made.on_step = lambda plan, _: made.disable(2) if plan.step == 45 else None
    made.run(submissions)
    logged = json.loads(json.dumps(rows))  # what a file would give back
    events = count_events(logged)
    for kind in ("preemptions", "cancels", "kill_switches", "chunked_prefill_rows", "sparse_rows"):
        assert events[kind] > 0, kind
    assert replay_plans(logged, stress(name)).identical
    commands = replay_commands(logged, stress(name))
    assert commands.identical
    assert commands.commands == sum(len(g.tokens) for g in made.done.values())


def test_a_command_that_was_not_issued_is_found_in_the_log(tiny):
    rows: list[dict[str, Any]] = []
    engine(tiny, "sampling", sink=rows.append).run(mixed(2))
    changed = next(row for row in rows if row["kind"] == "result")["commands"]
    changed[1] = float(np.nextafter(np.float32(changed[1]), np.float32(9.0)))
    assert replay_commands(rows, PRESETS["sampling"]).n_differing == 1


def test_a_user_who_hangs_up_keeps_what_came_and_frees_the_pages(tiny):
    made = engine(tiny)
    wanted = [submission(0, cancel_after_tokens=5), submission(1)]
    hung_up, other = made.run(wanted)
    assert (hung_up.reason, len(hung_up.tokens)) == ("cancelled", 5)
    assert other.tokens == tokens_of(engine(tiny), [submission(1)])[1]
    assert made.loop.scheduler.pool.n_held == 0
    assert len(made.executor.lanes) == 0
    assert not made.executor.live


def test_a_request_cancelled_before_its_first_step_gives_nothing(tiny):
    made = engine(tiny)
    made.submit(submission(3).request, prompt_of(20, 3))
    made.cancel(3)
    assert made.done[3].tokens == ()
    assert made.done[3].reason == "cancelled"
    assert made.step() is None


def test_the_kill_switch_returns_a_request_to_its_user_from_the_next_step_on(tiny):
    made = engine(tiny, sparse(0.9, name="full"))
    steps = watch(made)
    for each in (submission(i, 100, 30, temperature=0.8) for i in range(2)):
        made.submit(each.request, each.prompt)
    while made.loop.has_work:
        if len(steps) == 12:
            made.disable(0)
        made.step()
    x_user = np.float32(np.log(0.8))
    ours, theirs = ([] for _ in range(2))
    for plan, result in steps:
        for row, x in zip(plan.rows, result.commands, strict=True):
            (theirs if row.request_id else ours).append((row.coverage, x))
    before, after = ours[1:12], ours[12:]
    assert all(coverage == pytest.approx(0.9) and x != x_user for coverage, x in before)
    assert all(pair == (1.0, x_user) for pair in after)
    assert after
    assert all(c == pytest.approx(0.9) and x != x_user for c, x in theirs[1:])


def test_a_step_measures_its_own_logits_at_the_temperature_it_applies(tiny):
    seen: list[np.ndarray] = []

    def keep(_: object, logits: Tensor) -> Tensor:
        seen.append(logits[0].double().numpy().copy())
        return logits

    made = engine(tampered(tiny, keep), "sampling")
    steps = watch(made)
    made.run(mixed(4))
    assert len(steps) == len(seen) > 20
    for (_, result), logits in zip(steps, seen, strict=True):
        applied, _ = entropy_varentropy(logits, result.commands)
        np.testing.assert_allclose(result.h_applied, applied, atol=1e-4)
        h_cal, v_cal = entropy_varentropy(logits, 0.0)
        np.testing.assert_allclose(result.signals.h_cal, h_cal, atol=1e-4)
        np.testing.assert_allclose(result.signals.v_cal, v_cal, atol=1e-3)
        lanes = np.arange(len(result.tokens))
        surprisal = np.logaddexp.reduce(logits, axis=1) - logits[lanes, result.tokens]
        np.testing.assert_allclose(result.surprisal, surprisal, atol=1e-4)
    last = [result.signals.surprisal for _, result in steps]
    assert np.all(last[0] == 0.0)
    assert np.array_equal(last[1], steps[0][1].surprisal)


def test_greedy_requests_keep_their_temperature_and_take_the_argmax(tiny):
    greedy = submission(0, temperature=0.0)
    full, baseline = engine(tiny, "full"), engine(tiny, "baseline")
    assert tokens_of(full, [greedy, submission(1)])[0] == tokens_of(baseline, [greedy])[0]
    columns = full.ledger.tokens
    mine = columns["request_id"] == 0
    assert np.all(columns["command"][mine] == 0.0)
    assert not np.all(columns["command"][~mine] == 0.0)


def test_an_idle_engine_waits_for_the_next_arrival(tiny):
    made = engine(tiny)
    cpu = time.process_time()
    made.run([submission(0, max_tokens=2), submission(1, max_tokens=2, at_s=0.4)])
    arrivals = made.ledger.requests["arrival_ns"]
    assert arrivals[1] - arrivals[0] >= 390_000_000
    assert made.ledger.requests["finish_ns"][0] < arrivals[1]
    assert time.process_time() - cpu < 0.35  # it slept
    made.loop.check()


def test_generations_come_back_in_the_order_asked_whatever_the_arrivals(tiny):
    wanted = [submission(5, at_s=0.05), submission(2), submission(9, at_s=0.02)]
    made = engine(tiny)
    assert [g.request.request_id for g in made.run(wanted)] == [5, 2, 9]
    assert made.ledger.requests["request_id"].tolist() == [2, 9, 5]


def test_a_stop_token_ends_a_request_and_is_kept(tiny):
    made = engine(tiny)
    wanted = [submission(i, 10, 60, temperature=1.6) for i in range(8)]
    stopped = [g for g in made.run(wanted) if g.reason == "stop"]
    assert stopped
    assert all(g.tokens[-1] in tiny.stop_ids for g in stopped)
    assert all(not tiny.stop_ids & set(g.tokens[:-1]) for g in made.done.values())


def refusal(made, request: Request, prompt: Sequence[int]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller matches the text
        made.submit(request, prompt)
    return str(caught.value)


def test_a_request_longer_than_the_context_is_refused_by_field_and_value(tiny):
    made = engine(tiny)
    text = refusal(made, submission(0, CONTEXT, 1).request, prompt_of(CONTEXT, 0))
    assert f"max_context = {CONTEXT}" in text
    assert f"prompt_tokens={CONTEXT}" in text
    assert "\n" not in text


@pytest.mark.parametrize("wrong", [submission(0, CONTEXT, 1), submission(0, 20, 4)])
def test_a_refused_request_leaves_the_engine_as_it_was(tiny, wrong):
    made = engine(tiny)
    expected = tokens_of(engine(tiny), [submission(0), submission(1)])
    refusal(made, wrong.request, prompt_of(33, 0))  # too long, or not the prompt it names
    assert not made.loop.has_work
    assert not made.executor.live
    assert tokens_of(made, [submission(0), submission(1)]) == expected


def test_a_set_point_no_vocabulary_can_reach_is_refused(tiny):
    request = replace(submission(0).request, target_nats=6.0)  # ln 257 = 5.55
    text = refusal(engine(tiny), request, submission(0).prompt)
    assert text == "target_nats must lie in [0, ln n = 5.549]; got target_nats=6.0"


@pytest.mark.parametrize("strange", [-1, 257])
def test_a_token_outside_the_vocabulary_is_refused(tiny, strange):
    wanted = submission(0)
    text = refusal(engine(tiny), wanted.request, [*wanted.prompt[:-1], strange])
    assert text == f"prompt tokens must lie in [0, 257); got {strange}"


def test_an_id_in_use_is_refused_and_its_request_goes_on(tiny):
    made = engine(tiny)
    made.submit(submission(0).request, submission(0).prompt)
    made.step()
    refusal(made, submission(0, 5).request, prompt_of(5, 99))
    while made.loop.has_work:
        made.step()
    assert made.done[0].tokens == tokens_of(engine(tiny), [submission(0)])[0]
    refusal(made, submission(0).request, submission(0).prompt)  # nor after it finished
    assert not made.executor.live


def test_one_token_prompts_and_chunks_take_the_decode_path_and_fit_in(tiny):
    narrow = EngineLimits(max_seqs=3, token_budget=3, n_pages=32, max_context=100)
    wanted = [submission(i, n, 6) for i, n in enumerate((1, 4, 7))]
    assert tokens_of(engine(tiny, "full", narrow), wanted) == tokens_of(
        engine(tiny, "full", ROOMY), wanted
    )


def test_a_request_due_while_a_step_runs_waits_from_when_it_was_due(tiny):
    made = engine(tiny)
    made.run([submission(0), submission(1, at_s=0.0001)])
    arrived = made.ledger.requests["arrival_ns"]
    assert arrived[1] - arrived[0] == 100_000


def test_page_scores_are_counted_on_sparse_rows_alone(tiny):
    dense, pruned = engine(tiny), engine(tiny, sparse(0.9))
    for made in (dense, pruned):
        made.run([submission(0, 100, 8)])
    assert dense.ledger.steps["pages_scored"].sum() == 0
    steps = pruned.ledger.steps
    decode = steps["n_decode"] > 0
    assert (steps["pages_scored"][decode] == steps["page_units_dense"][decode]).all()
    assert steps["pages_scored"][~decode].sum() == 0
