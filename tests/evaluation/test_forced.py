"""Forced scoring on a tiny model: dense equals itself, pruning shows, and the counts are right."""

from __future__ import annotations

import math

import pytest
import torch

from controllers.coverage import EntropyCoverage
from controllers.presets import get_preset
from reports.evaluation.fidelity import along, sampler
from reports.evaluation.forced import ForcedScorer
from reports.evaluation.settings import Setting, fixed, of_preset, score_price, sweep
from tests.backend.tiny import CONTEXT, STOP, prompt_of, tiny_model

TOKENS = 12
REPLY = list(prompt_of(TOKENS, 99))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def scorer(tiny, settings, **options) -> ForcedScorer:
    return ForcedScorer(tiny, settings, context=420, max_tokens=TOKENS, **options)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 400])
def test_full_coverage_is_dense_bit_for_bit(tiny, length):
    made = scorer(tiny, [fixed(1.0)])
    made.prefill(prompt_of(length, 3))
    tokens, found = made.score(along(REPLY))
    scored = found[fixed(1.0).name]
    assert tokens == REPLY
    assert scored.kl_nats == [0.0] * (TOKENS - 1)  # the first token is the prefill's
    assert scored.nll_nats == scored.dense_nll_nats
    assert all(scored.agrees)
    assert scored.units_read == scored.units_dense
    assert scored.units_scored == 0
    assert scored.dropped == []


def test_forced_likelihoods_are_those_of_one_dense_pass(tiny):
    prompt = prompt_of(300, 4)
    made = scorer(tiny, [fixed(1.0)])
    made.prefill(prompt)
    found = made.score(along(REPLY))[1][fixed(1.0).name]
    whole = ForcedScorer(tiny, [fixed(1.0)], context=420, max_tokens=2)
    for i in range(1, TOKENS):
        logits = whole.prefill([*prompt, *REPLY[:i]])
        expected = float(logits.logsumexp(-1) - logits[REPLY[i]])
        assert found.dense_nll_nats[i - 1] == pytest.approx(expected, abs=2e-4)


def test_pruning_shows_and_the_oracle_keeps_what_was_asked(tiny):
    settings = [fixed(0.6, scorer="oracle"), fixed(0.95, scorer="oracle"), fixed(0.95)]
    made = scorer(tiny, settings, look_every=1)
    made.prefill(prompt_of(400, 5))
    _, found = made.score(along(REPLY))
    low, high, estimated = (found[setting.name] for setting in settings)
    assert low.units_read < high.units_read < high.units_dense
    assert sum(low.kl_nats) > sum(high.kl_nats) > 0.0
    # Masses are means over the query group, so a coverage holds for the mean.
    assert all(d <= a + 1e-5 for d, a in zip(high.dropped, high.asked_there, strict=True))
    assert len(high.dropped) == TOKENS - 1
    assert max(estimated.dropped) > 0.05
    assert high.units_scored == high.units_dense


def test_pages_are_counted_by_hand(tiny):
    made = scorer(tiny, [fixed(0.9, dense_layers=1)])
    made.prefill(prompt_of(400, 6))
    found = next(iter(made.score(along(REPLY))[1].values()))
    contexts = range(401, 401 + TOKENS - 1)
    pages = sum(-(-context // 16) for context in contexts)
    assert found.units_dense == pages * tiny.layers * tiny.kv_heads
    assert found.units_scored == pages * tiny.kv_heads  # one layer of two prunes
    assert pages * tiny.kv_heads < found.units_read < found.units_dense


def test_settings_do_not_touch_each_other(tiny):
    prompt = prompt_of(390, 7)
    settings = [fixed(0.9), fixed(0.9, scorer="quest"), fixed(0.8), fixed(0.9, dense_layers=1)]
    together = scorer(tiny, settings)
    together.prefill(prompt)
    _, found = together.score(along(REPLY))
    for setting in settings:
        alone = scorer(tiny, [setting])
        alone.prefill(prompt)
        again = alone.score(along(REPLY))[1][setting.name]
        assert again.kl_nats == pytest.approx(found[setting.name].kl_nats, abs=1e-4)
        assert again.units_read == found[setting.name].units_read


def test_scoring_again_gives_the_same(tiny):
    made = scorer(tiny, [fixed(0.9), fixed(0.9, scorer="lagged")])
    made.prefill(prompt_of(380, 8))
    first = made.score(along(REPLY))[1][fixed(0.9).name]
    made.prefill(prompt_of(200, 9))
    made.score(along(REPLY))
    made.prefill(prompt_of(380, 8))
    assert made.score(along(REPLY))[1][fixed(0.9).name].kl_nats == first.kl_nats


def test_a_law_decides_and_short_contexts_and_probes_are_dense(tiny):
    law = EntropyCoverage(p_min=0.8, p_max=0.9)
    always = Setting(name="law", coverage=law)
    probed = Setting(name="probed", coverage=law, probe_every=4)
    late = Setting(name="late", coverage=law, min_context=406)
    made = scorer(tiny, [always, probed, late])
    made.prefill(prompt_of(400, 10))
    _, found = made.score(along(REPLY))
    assert all(0.8 <= coverage <= 0.9 for coverage in found["law"].coverage)
    assert [i for i, c in enumerate(found["probed"].coverage, 1) if c == 1.0] == [4, 8]
    assert [c == 1.0 for c in found["late"].coverage] == [True] * 5 + [False] * 6
    assert of_preset(get_preset("attention")).min_context == 512


def test_a_sampled_text_is_the_dense_models_own_and_ends_before_a_stop(tiny):
    made = scorer(tiny, [fixed(0.9)])
    first = made.prefill(prompt_of(200, 11))
    tokens, _ = made.score(sampler(tiny, temperature=0.0, seed=0))
    assert tokens[0] == int(first.argmax())
    warm = sampler(tiny, temperature=1.0, seed=3)
    assert made.score(warm)[0] == made.score(warm)[0]
    assert made.score(sampler(tiny, temperature=1.0, seed=4))[0] != made.score(warm)[0]
    logits = torch.full((STOP + 1,), -math.inf)
    logits[STOP] = 0.0
    assert sampler(tiny, temperature=0.8, seed=0)(0, logits) is None


def test_a_reply_of_one_token_scores_nothing(tiny):
    made = scorer(tiny, [fixed(0.9)])
    made.prefill(prompt_of(100, 12))
    tokens, found = made.score(along(REPLY[:1]))
    assert tokens == REPLY[:1]
    assert found[fixed(0.9).name].kl_nats == []


def test_bad_arguments_are_named(tiny):
    with pytest.raises(ValueError, match=r"context \+ max_tokens must be <= 512"):
        ForcedScorer(tiny, [fixed(0.9)], context=CONTEXT, max_tokens=2)
    with pytest.raises(ValueError, match="settings need names of their own"):
        ForcedScorer(tiny, [fixed(0.9), fixed(0.9)], context=20, max_tokens=2)
    with pytest.raises(ValueError, match="max_tokens must be >= 2"):
        ForcedScorer(tiny, [fixed(0.9)], context=20, max_tokens=1)
    made = scorer(tiny, [fixed(0.9)])
    with pytest.raises(ValueError, match="prefill must come before"):
        made.score(along(REPLY))
    with pytest.raises(ValueError, match="prompt must have 1 to 420 tokens"):
        made.prefill([1] * 421)
    with pytest.raises(ValueError, match="a setting needs a name"):
        Setting(name="dense", coverage=EntropyCoverage())


def test_the_sweep_names_each_setting_once():
    names = [setting.name for setting in sweep()]
    assert len(set(names)) == len(names)


def test_scores_are_priced_by_what_they_read():
    price = {
        setting.sparse.scorer: score_price(setting.sparse, page_tokens=16, head_dim=64)
        for setting in sweep()
    }
    assert price == {
        "oracle": 0.0, "mean_std": 1 / 16, "quest": 1 / 16,
        "lagged": 129 / 2048, "low_bit": 36 / 512,
    }  # fmt: skip


def test_low_bit_keys_come_close_to_the_oracle(tiny):
    settings = [fixed(0.9, scorer="oracle"), fixed(0.9, scorer="low_bit"), fixed(0.9)]
    made = scorer(tiny, settings, look_every=1)
    made.prefill(prompt_of(400, 13))
    oracle, low_bit, mean_std = made.score(along(REPLY))[1].values()
    assert low_bit.units_read == pytest.approx(oracle.units_read, rel=0.1)
    assert max(low_bit.dropped) < 0.2 < max(mean_std.dropped)
