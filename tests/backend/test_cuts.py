"""Truncations live: what may be drawn, what laws see, and whom a cut leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.samplers import MinP, MirostatV2, TopK, TopP
from controllers.serving.messages import Result
from tests.backend.tiny import engine, submission, tokens_of

WANTED = [submission(i, 20 + i, 16, temperature=1.3) for i in range(4)]
COLD = [replace(s, request=replace(s.request, temperature=0.0)) for s in WANTED]


def cut(*stages, name="baseline"):
    return replace(get_preset(name), stages=stages)


def test_the_one_likeliest_token_is_the_greedy_one(tiny):
    assert tokens_of(engine(tiny, cut(TopK(k=1))), WANTED) == tokens_of(engine(tiny), COLD)


def test_a_cut_that_keeps_everything_changes_nothing(tiny):
    whole = tokens_of(engine(tiny), WANTED)
    assert tokens_of(engine(tiny, cut(TopP(p=1.0))), WANTED) == whole
    assert tokens_of(engine(tiny, cut(TopK(k=3))), WANTED) != whole


def test_laws_measure_the_row_before_the_cut(tiny):
    seen: dict[str, list[Result]] = {"whole": [], "cut": []}
    for name, preset in (("whole", cut(name="full")), ("cut", cut(TopP(p=1e-6), name="full"))):
        made = engine(tiny, preset)
        made.on_step = lambda _, result, name=name: seen[name].append(result)
        made.run(WANTED)
    first = [results[0] for results in seen.values()]
    np.testing.assert_array_equal(first[0].signals.h_in, first[1].signals.h_in)
    np.testing.assert_array_equal(first[0].commands, first[1].commands)
    np.testing.assert_array_equal(first[0].h_applied, first[1].h_applied)


def test_switched_off_and_greedy_requests_keep_their_whole_row(tiny):
    off = [replace(s, request=replace(s.request, enabled=False)) for s in WANTED]
    strict = cut(TopK(k=1))
    assert tokens_of(engine(tiny, strict), off) == tokens_of(engine(tiny), off)
    assert tokens_of(engine(tiny, strict), COLD) == tokens_of(engine(tiny), COLD)


@pytest.mark.parametrize("stage", [MirostatV2(surprise="post"), MinP(p_base=0.2)])
def test_a_request_is_cut_alike_whoever_it_is_served_with(tiny, stage):
    together = tokens_of(engine(tiny, cut(stage)), WANTED)
    for wanted in WANTED:
        alone = tokens_of(engine(tiny, cut(stage)), [wanted])
        assert alone[wanted.request.request_id] == together[wanted.request.request_id]


def test_lanes_of_finished_requests_are_used_again(tiny):
    made = engine(tiny, cut(MirostatV2()))
    for first in range(0, 60, 20):
        made.run([submission(first + i, 5, 2) for i in range(20)])
    made.executor.sampling.cuts._lanes.check()
    assert len(made.executor.sampling.cuts._lanes) == 0


def test_a_log_names_the_stages_it_was_made_with():
    plain, strict = get_preset("full"), cut(TopK(k=4), name="full")
    assert plain.fingerprints() == {k: v for k, v in strict.fingerprints().items() if k != "stages"}
    assert "stages" in strict.fingerprints()
