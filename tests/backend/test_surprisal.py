"""Surprisal of prompts in chunks and of sampled tokens: the right numbers in the right slots."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import backend.surprisal
from backend.errors import UnsupportedModel
from backend.executor import LiveExecutor
from backend.models import LoadedModel
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from tests.backend.tiny import CONTEXT, prompt_of, tampered

LIMITS = EngineLimits(max_seqs=4, token_budget=512, n_pages=32, max_context=CONTEXT)
SIZE = LIMITS.page_tokens
PROMPT = prompt_of(70, 3)
OTHER = prompt_of(41, 4)
PAGES = {0: [5, 3, 9, 8, 1, 12], 1: [2, 20, 21, 22]}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def request(request_id: int, prompt: tuple[int, ...]) -> Request:
    return Request(
        request_id=request_id, prompt_tokens=len(prompt), max_tokens=8, seed=7 + request_id
    )


def executor(loaded: LoadedModel, *, score_prompts: bool = True) -> LiveExecutor:
    made = LiveExecutor(loaded, get_preset("full"), LIMITS, score_prompts=score_prompts)
    for request_id, prompt in ((0, PROMPT), (1, OTHER)):
        made.add(request(request_id, prompt), prompt)
    return made


def row(request_id: int, start: int, n: int, *, samples: bool = False) -> Row:
    return Row(request_id, start, n, samples, 1.0, False)


def run(made: LiveExecutor, *steps: tuple[Row, ...]) -> None:
    for number, rows in enumerate(steps):
        made.execute(Plan(number, rows), PAGES)


def expected(loaded: LoadedModel, tokens: tuple[int, ...] | list[int]) -> np.ndarray:
    """Score a sequence by stock attention in one pass; the first token has no score."""
    network = type(loaded.model)(copy.deepcopy(loaded.model.config)).eval()
    network.load_state_dict(loaded.model.state_dict())
    network.set_attn_implementation("eager")
    with torch.no_grad():
        logits = network(torch.tensor([tokens])).logits[0].double()
    log_p = logits.log_softmax(-1)[:-1]
    scored = -log_p.gather(1, torch.tensor(tokens)[1:, None])[:, 0]
    return np.concatenate([[np.nan], scored.numpy()])


def cached(made: LiveExecutor, request_id: int, n: int) -> np.ndarray:
    return made.cache.surprisal[PAGES[request_id]].reshape(-1)[:n].numpy()


@pytest.mark.parametrize("cuts", [[70], [1, 69], [16, 17, 37], [32, 32, 5, 1]])
def test_a_prompt_scores_the_same_however_it_is_cut(tiny, cuts):
    made = executor(tiny)
    starts = np.cumsum([0, *cuts]).tolist()
    run(
        made,
        *((row(0, a, b - a, samples=b == 70),) for a, b in pairwise(starts)),
    )
    scores = expected(tiny, PROMPT)
    np.testing.assert_allclose(cached(made, 0, 70), scores, **CLOSE)
    found = made.prompt_score(0)
    assert found.tokens == 69
    assert found.nats == pytest.approx(np.nansum(scores), rel=1e-5)


def test_prompts_are_scored_beside_others_and_beside_decoding(tiny):
    made = executor(tiny)
    run(made, (row(0, 0, 70, samples=True),))
    run(made, (row(1, 0, 30), row(0, 70, 1, samples=True)))
    run(made, (row(0, 71, 1, samples=True), row(1, 30, 11, samples=True)))
    np.testing.assert_allclose(cached(made, 1, 41), expected(tiny, OTHER), **CLOSE)
    # The newest token has not been computed, so its surprisal is not in the cache yet.
    tokens = made.live[0].tokens[:72]
    np.testing.assert_allclose(cached(made, 0, 72), expected(tiny, tokens), **CLOSE)


def test_small_blocks_of_logits_give_the_same_scores(tiny, monkeypatch):
    monkeypatch.setattr(backend.surprisal, "BLOCK_ROWS", 7)
    made = executor(tiny)
    run(made, (row(0, 0, 70, samples=True),))
    np.testing.assert_allclose(cached(made, 0, 70), expected(tiny, PROMPT), **CLOSE)


def test_scores_survive_recomputation_after_preemption(tiny):
    made = executor(tiny)
    run(made, (row(0, 0, 70, samples=True),), (row(0, 70, 1, samples=True),))
    before, score = cached(made, 0, 71).copy(), made.prompt_score(0)
    made.cache.surprisal.fill_(123.0)  # the freed pages went to somebody else
    run(made, (row(0, 0, 72, samples=True),))
    np.testing.assert_array_equal(cached(made, 0, 71), before)
    assert made.prompt_score(0) == score


def test_a_prefix_hit_takes_over_the_scores_it_finds(tiny):
    made = executor(tiny)
    run(made, (row(0, 0, 70, samples=True),))
    made.add(request(2, PROMPT), PROMPT)
    of_hit = {2: [*PAGES[0][:2], 25, 26, 27]}
    made.execute(Plan(1, (row(2, 2 * SIZE, 70 - 2 * SIZE, samples=True),)), of_hit)
    found, whole = made.prompt_score(2), made.prompt_score(0)
    scores = expected(tiny, PROMPT)
    assert found.tokens == whole.tokens - 1  # nothing scored the first token after the hit
    assert found.nats == pytest.approx(whole.nats - scores[2 * SIZE], abs=1e-3)


def test_without_scoring_only_sampled_tokens_have_a_surprisal(tiny):
    made = executor(tiny, score_prompts=False)
    run(made, (row(0, 0, 70, samples=True),), (row(0, 70, 1, samples=True),))
    assert np.isnan(cached(made, 0, 70)).all()
    tokens = made.live[0].tokens[:71]
    assert cached(made, 0, 71)[70] == pytest.approx(expected(tiny, tokens)[70], abs=1e-4)
    assert made.prompt_score(0) == (0.0, 0)


def test_scoring_changes_no_token(tiny):
    plain, scored = executor(tiny, score_prompts=False), executor(tiny)
    for made in (plain, scored):
        run(
            made,
            (row(0, 0, 70, samples=True),),
            *((row(0, 70 + i, 1, samples=True),) for i in range(6)),
        )
    assert plain.live[0].tokens == scored.live[0].tokens


def test_a_released_request_leaves_nothing_behind(tiny):
    made = executor(tiny)
    run(made, (row(0, 0, 70, samples=True),))
    made.release(0)
    made.release(0)
    assert set(made.surprisal._known) == {1}


def test_a_model_that_caps_its_logits_is_refused(tiny):
    def cap(_: Any, logits: Tensor) -> Tensor:
        return 5.0 * torch.tanh(logits / 5.0)

    capped = tampered(tiny, cap)
    capped.model.get_decoder = tiny.model.get_decoder
    capped.model.get_output_embeddings = tiny.model.get_output_embeddings
    made = executor(capped)
    with pytest.raises(UnsupportedModel, match="scores of prompts need logits that no cap"):
        run(made, (row(0, 0, 70, samples=True),))
