"""Bad input meets a serving engine: one line that names field and value, and the others go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from backend.errors import EngineFault, RequestTooLong
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from reports.soak.remnants import FIRST_ID, remnants
from tests.backend.tiny import VOCAB, engine, prompt_of, submission, tampered, tokens_of

SMALL = EngineLimits(max_seqs=2, token_budget=32, n_pages=8, max_context=200)
BAD = FIRST_ID + 1
OTHERS = [submission(FIRST_ID + 10 + i, 20, 12) for i in range(2)]


def bad(prompt: tuple[int, ...], **fields: Any) -> tuple[Request, tuple[int, ...]]:
    given = {"request_id": BAD, "prompt_tokens": len(prompt), "max_tokens": 4, **fields}
    return Request(**given), prompt


REFUSED = {
    "longer than the context": (
        lambda: bad(prompt_of(150, 1), max_tokens=51),
        RequestTooLong,
        "prompt_tokens + max_tokens must be <= max_context = 200; "
        "got prompt_tokens=150, max_tokens=51",
    ),
    "longer than the pool": (
        lambda: bad(prompt_of(120, 1), max_tokens=30),
        RequestTooLong,
        "prompt_tokens + max_tokens must fit the pool of n_pages = 8; got pages_needed=10",
    ),
    "a token past the vocabulary": (
        lambda: bad((1, VOCAB, 2)),
        ValueError,
        f"prompt tokens must lie in [0, {VOCAB}); got {VOCAB}",
    ),
    "a negative token": (
        lambda: bad((1, -1)),
        ValueError,
        f"prompt tokens must lie in [0, {VOCAB}); got -1",
    ),
    "an empty prompt": (
        lambda: bad(()),
        ValueError,
        "prompt_tokens must be >= 1; got prompt_tokens=0",
    ),
    "another prompt than announced": (
        lambda: bad((1, 2), prompt_tokens=3),
        ValueError,
        "prompt_tokens must be the prompt's length 2; got prompt_tokens=3",
    ),
    "nothing to generate": (
        lambda: bad((1,), max_tokens=0),
        ValueError,
        "max_tokens must be >= 1; got max_tokens=0",
    ),
    "a temperature that is no number": (
        lambda: bad((1,), temperature=float("nan")),
        ValueError,
        "temperature must be finite and >= 0; got temperature=nan",
    ),
    "a set-point out of reach": (
        lambda: bad((1,), target_nats=9.0),
        ValueError,
        "target_nats must lie in [0, ln n = 5.549]; got target_nats=9.0",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_bad_request_is_refused_in_one_line_and_the_others_do_not_notice(tiny, name):
    make, kind, text = REFUSED[name]
    made = engine(tiny, "full", SMALL)
    for each in OTHERS:
        made.submit(each.request, each.prompt)
    made.step()
    with pytest.raises(kind) as caught:
        made.submit(*make())
    assert str(caught.value) == text
    assert not remnants(made, {BAD})
    while made.loop.has_work:
        made.step()
    assert {i: g.tokens for i, g in made.done.items()} == tokens_of(engine(tiny, "full"), OTHERS)


@pytest.mark.parametrize("page_tokens", [1, 17, 200])
def test_any_page_size_serves_the_same_tokens(tiny, page_tokens):
    """17 divides nothing; a page of 200 is longer than the longest request."""
    limits = EngineLimits(
        max_seqs=2,
        token_budget=16,
        n_pages=-(-75 // page_tokens),
        max_context=60,
        page_tokens=page_tokens,
    )
    wanted = [submission(i, 11 + 13 * i, 20, temperature=0.9) for i in range(3)]
    made = engine(tiny, "sampling", limits)
    assert tokens_of(made, wanted) == tokens_of(engine(tiny, "sampling"), wanted)
    made.loop.check()


@pytest.mark.parametrize("value", [0, -1, 2.5])
@pytest.mark.parametrize("name", ["page_tokens", "n_pages", "max_seqs"])
def test_a_limit_that_is_no_positive_integer_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be an integer >= 1; got {name}={value}$"):
        replace(SMALL, **{name: value})


def test_a_step_that_raises_fails_its_requests_and_the_next_are_served(tiny):
    def change(step: Any, logits: Tensor) -> Tensor:
        if any(row.request_id == BAD for row in step.rows):
            raise RuntimeError("device lost\nand more")
        return logits

    made = engine(tampered(tiny, change), "full", SMALL)
    first, second = OTHERS
    made.submit(first.request, first.prompt)
    made.step()
    made.submit(*bad(prompt_of(10, 2)))
    made.submit(second.request, second.prompt)  # waits: both slots are taken
    with pytest.raises(EngineFault, match=r"RuntimeError: device lost$") as caught:
        made.step()
    assert set(caught.value.request_ids) == {first.request.request_id, BAD}
    while made.loop.has_work:
        made.step()
    expected = tokens_of(engine(tiny, "full"), [second])[second.request.request_id]
    assert made.done[second.request.request_id].tokens == expected
    assert {made.done[i].reason for i in caught.value.request_ids} == {"engine_fault"}
    assert made.loop.scheduler.pool.n_held == 0
    assert not remnants(made, made.done)
