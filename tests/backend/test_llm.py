"""The library: replies, their metrics, and control request by request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.params import SamplingParams
from tests.backend.served import (
    MEDIUM,
    SHORT,
    Gate,
    llm,
    settled,
    temperatures,
    text_of,
)
from tests.backend.tiny import (
    STOP,
    engine,
    prompt_of,
    sparse,
    submission,
    tokens_of,
)


def test_replies_are_those_of_the_engine_in_the_order_asked(tiny):
    wanted = [submission(i, 30 + 9 * i, 14, temperature=0.9) for i in range(4)]
    expected = tokens_of(engine(tiny, "full"), wanted)
    params = [SamplingParams(max_tokens=14, temperature=0.9, seed=1000 + i) for i in range(4)]
    with llm(tiny) as made:
        outputs = made.generate([each.prompt for each in wanted], params)
        assert settled(made)
    assert [output.token_ids for output in outputs] == list(expected.values())
    for output, each in zip(outputs, wanted, strict=True):
        assert output.text == text_of(output.token_ids)
        assert output.prompt_tokens == len(each.prompt)
        assert output.finish_reason in ("stop", "length")


def test_one_set_of_parameters_gives_each_prompt_a_seed_of_its_own(tiny):
    with llm(tiny) as made:
        first, second = made.generate(["same", "same"], SHORT)
        (alone,) = made.generate("same", replace(SHORT, seed=1))
    assert first.token_ids != second.token_ids == alone.token_ids


def test_metrics_of_an_output_are_means_over_its_tokens(tiny):
    with llm(tiny) as made:
        stream = made.stream("hello there", SHORT)
        deltas = list(stream)
        output = stream.output
        assert made.metrics()["completed"] == 1
    assert output is not None
    metrics = output.metrics
    assert metrics.entropy_nats == pytest.approx(sum(d.entropy_nats for d in deltas) / 6)
    assert metrics.temperature == pytest.approx(sum(d.temperature for d in deltas) / 6)
    assert metrics.nll_nats == pytest.approx(sum(d.surprisal_nats for d in deltas) / 6)
    assert 0.0 < metrics.ttft_s < metrics.ttft_s + metrics.tpot_s < metrics.e2e_s


def test_a_stop_string_ends_a_reply_and_only_that_reply(tiny):
    with llm(tiny, "baseline") as made:
        whole = made.generate(["one", "two"], MEDIUM)
        stop = whole[0].text[7:9]
        params = [replace(MEDIUM, stop=(stop, "never there")), replace(MEDIUM, seed=1)]
        stopped, other = made.generate(["one", "two"], params)
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    assert stopped.text == whole[0].text[: whole[0].text.index(stop)]
    assert stopped.token_ids == whole[0].token_ids[: len(stopped.token_ids)]
    assert text_of(stopped.token_ids).endswith(stop)
    assert other.token_ids == whole[1].token_ids


def test_stop_tokens_of_a_request_add_to_the_models_and_can_replace_them(tiny):
    with llm(tiny, "baseline") as made:
        (whole,) = made.generate("one", MEDIUM)
        stop_id = whole.token_ids[9]
        (stopped,) = made.generate("one", replace(MEDIUM, stop_token_ids=(stop_id,)))
        prompts, hot = [prompt_of(10, i) for i in range(8)], replace(MEDIUM, temperature=1.6)
        further = made.generate(prompts, hot)
        stops = made.generate(prompts, replace(hot, ignore_stop=False))
    assert stopped.token_ids == whole.token_ids[: whole.token_ids.index(stop_id) + 1]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop_id)
    assert stopped.text == text_of(stopped.token_ids[:-1])
    assert {len(output.token_ids) for output in further} == {40}
    ended = [output for output in stops if output.finish_reason == "stop"]
    assert ended
    assert all(o.stop_reason == o.token_ids[-1] == STOP for o in ended)


def test_a_request_that_outlives_the_remembered_history_is_still_delivered(tiny):
    with llm(tiny, history=1) as made:
        outputs = made.generate([*"abcdefgh"], [MEDIUM, *[SHORT] * 7])
        assert [len(output.token_ids) for output in outputs] == [40, *[6] * 7]
        assert len(made._engine.ledger.requests) <= 2


def test_the_kill_switch_of_one_request_leaves_the_other_under_control(tiny):
    gate, hot = Gate(tiny), replace(MEDIUM, temperature=1.5)
    with llm(gate.loaded) as made:
        off, on = made.stream("hello", hot), made.stream("you there", hot)
        gate.let(10)
        head = [next(off) for _ in range(9)]
        made.disable(off.request_id)
        gate.let(100)
        rest, other = list(off), list(on)
    assert len(temperatures(head)) > 5
    assert temperatures(rest[3:]) == {1.5}  # the steps that were let through came first
    assert len(temperatures(other[14:])) > 5


def test_the_kill_switch_of_the_engine_reaches_every_request_now_and_later(tiny):
    gate, hot = Gate(tiny), replace(MEDIUM, temperature=1.5)
    with llm(gate.loaded, sparse(0.6, name="full")) as made:
        running = made.stream("hello", hot)
        gate.let(10)
        head = [next(running) for _ in range(9)]
        assert head[-1].coverage == pytest.approx(0.6)
        made.disable_all()
        gate.let(100)
        later = list(made.stream("later", hot))
        rest = list(running)[3:]
    assert temperatures(later) == temperatures(rest) == {1.5}
    assert {delta.coverage for delta in [*later, *rest]} == {1.0}


def test_a_request_may_raise_its_own_coverage_up_to_dense(tiny):
    floors = (0.0, 0.8, 1.0)
    with llm(tiny, sparse(0.6)) as made:
        params = [replace(SHORT, min_coverage=floor) for floor in floors]
        outputs = made.generate(["a" * 90] * 3, params)
    found = [output.metrics.coverage for output in outputs]
    assert found == pytest.approx([(1 + 5 * kept) / 6 for kept in (0.6, 0.8, 1.0)])


def test_shadow_applies_baseline_and_tells_what_the_preset_would_have_done(tiny):
    preset, prompts = sparse(0.6, name="full"), ["a" * 90, "hello"]
    with llm(tiny, "baseline") as made:
        plain = made.generate(prompts, SHORT)
    with llm(tiny, preset, shadow=True) as made:
        shadowed = made.generate(prompts, SHORT)
    for output, expected in zip(shadowed, plain, strict=True):
        assert output.token_ids == expected.token_ids
        metrics = output.metrics
        assert (metrics.coverage, metrics.temperature) == (1.0, 1.0)
        assert metrics.shadow_coverage == pytest.approx((1 + 5 * 0.6) / 6)
        assert metrics.shadow_temperature is not None
        assert metrics.shadow_temperature != pytest.approx(1.0, abs=1e-3)
    assert expected.metrics.shadow_coverage is None


def test_a_conversation_finds_the_pages_of_its_earlier_turns(tiny):
    first = [{"role": "user", "content": "h" * 70}]
    later = [*first, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y" * 20}]
    found = {}
    for caching in (True, False):
        with llm(tiny, prefix_caching=caching) as made:
            found[caching] = [made.chat(each, SHORT) for each in (first, later)]
            assert settled(made)
    hits = [output.metrics.prefix_hit_tokens for output in found[True]]
    assert hits == [0, 64]  # four full pages of 70 tokens and a newline
    assert [o.metrics.prefix_hit_tokens for o in found[False]] == [0, 0]
    assert [o.token_ids for o in found[True]] == [o.token_ids for o in found[False]]


def test_a_page_budget_evicts_and_outputs_say_how_much(tiny):
    params = replace(MEDIUM, max_tokens=30)
    with llm(tiny, "baseline") as made:
        (whole,) = made.generate("a" * 230, params)
    with llm(tiny, "baseline", kv_budget_pages=6) as made:
        evicted, spared = made.generate(
            ["a" * 230] * 2, [params, replace(params, min_coverage=1.0)]
        )
        assert settled(made)
    assert evicted.metrics.pages_evicted > 0
    assert spared.metrics.pages_evicted == whole.metrics.pages_evicted == 0
    assert spared.token_ids == whole.token_ids
    assert len(evicted.token_ids) == 30


def test_prompts_are_scored_where_the_engine_is_asked_to(tiny):
    with llm(tiny, score_prompts=True) as scoring, llm(tiny) as plain:
        (scored,) = scoring.generate("hello there", SHORT)
        (unscored,) = plain.generate("hello there", SHORT)
    assert unscored.metrics.prompt_nll_nats is None
    assert scored.metrics.prompt_nll_nats is not None
    assert 1.0 < scored.metrics.prompt_nll_nats < 20.0  # a random model on bytes
    assert scored.token_ids == unscored.token_ids
