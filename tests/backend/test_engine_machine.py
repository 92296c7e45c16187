"""The real engine under random arrivals, hang-ups, kill switches and failures, pages being short.

Some tokens have a NaN embedding, so that a request fails when its prompt holds one, or after it
samples one; a request served alone fails at the same token. Pages that failed requests leave
behind stay poisoned.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from backend.engine import Engine
from backend.models import LoadedModel
from controllers.presets import Preset, get_preset
from controllers.samplers import TopK
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from reports.soak.remnants import FIRST_ID, remnants
from tests.backend.tiny import (
    EVEN_IF_SHORT,
    STEP_LAW,
    STOP,
    engine,
    prompt_of,
    sparse,
    tiny_model,
)

MAX_REQUESTS = 9
CONTEXT = 72
POISON = (3, 91, 160, 222)
STOPS = frozenset({10, 60, 110, 170, 230, STOP})
STEMS = ((), *(tuple(t for t in prompt_of(n, n) if t not in POISON) for n in (17, 33)))
SEEN = ("preemptions", "prefix_hit_tokens", "rehit_tokens", "pages_evicted")
REASONS = {"stop", "length", "cancelled", "nonfinite_logits"}
PRESETS: dict[str, Preset] = {
    "baseline": get_preset("baseline"),
    "truncated": replace(get_preset("sampling"), stages=(TopK(k=40),)),
    "sparse": sparse(0.8, name="full"),
    "evicting": replace(get_preset("baseline"), kv_budget_pages=4, kv_burst_pages=1),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of an example, hashable: requests served alone are remembered."""

    request: Request
    prompt: tuple[int, ...]


@functools.cache
def model() -> LoadedModel:
    loaded = tiny_model()
    network = copy.deepcopy(loaded.model)
    network.model.embed_tokens.weight.data[list(POISON)] = torch.nan
    return replace(loaded, model=network, stop_ids=STOPS)


@functools.cache
def alone(asked: Asked, preset: str, page_tokens: int) -> tuple[tuple[int, ...], str]:
    """Serve one request by itself; return its tokens and why it ended."""
    limits = EngineLimits(
        max_seqs=1,
        token_budget=CONTEXT,
        n_pages=CONTEXT,
        max_context=CONTEXT,
        page_tokens=page_tokens,
    )
    made = engine(model(), PRESETS[preset], limits)
    made.submit(asked.request, asked.prompt)
    while made.loop.has_work:
        made.step()
    done = made.done[asked.request.request_id]
    return done.tokens, done.reason


class EngineMachine(RuleBasedStateMachine):
    seen: ClassVar[Counter[str]] = Counter()  # over all examples: a search that finds nothing fails

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, Asked] = {}
        self.disabled: set[int] = set()
        self.made: Engine | None = None

    @initialize(
        preset=st.sampled_from(sorted(PRESETS)),
        page_tokens=st.sampled_from([1, 5, 16]),
        spare=st.integers(0, 30),
        max_seqs=st.integers(2, 5),
        budget=st.integers(5, 30),
        sharing=st.booleans(),
    )
    def build(
        self,
        *,
        preset: str,
        page_tokens: int,
        spare: int,
        max_seqs: int,
        budget: int,
        sharing: bool,
    ) -> None:
        self.preset, self.page_tokens = preset, page_tokens
        limits = EngineLimits(
            max_seqs=max_seqs,
            token_budget=budget,
            n_pages=-(-(CONTEXT + spare) // page_tokens),
            max_context=CONTEXT,
            page_tokens=page_tokens,
        )
        self.made = Engine(
            model(),
            PRESETS[preset],
            limits,
            STEP_LAW,
            sparse=EVEN_IF_SHORT,
            prefix_caching=sharing,
        )

    @property
    def engine(self) -> Engine:
        assert self.made is not None
        return self.made

    @precondition(lambda self: len(self.asked) < MAX_REQUESTS)
    @rule(
        burst=st.lists(
            st.tuples(
                st.sampled_from(STEMS),
                st.integers(1, 12),  # tokens of its own
                st.integers(1, 30),  # to generate, at most
                st.sampled_from([0.0, 0.9, 1.6]),  # temperature
                st.integers(0, 7).map(lambda n: n == 7),  # whether its prompt is poisoned
            ),
            min_size=2,
            max_size=5,
        )
    )
    def submit(self, burst: list[tuple[tuple[int, ...], int, int, float, bool]]) -> None:
        for stem, tail, max_tokens, temperature, poisoned in burst:
            request_id = FIRST_ID + len(self.asked)
            own = (token for token in prompt_of(tail, tail) if token not in POISON)
            prompt = (*stem, *own, POISON[0] if poisoned else 1)
            request = Request(
                request_id=request_id,
                prompt_tokens=len(prompt),
                max_tokens=min(max_tokens, CONTEXT - len(prompt)),
                temperature=temperature,
                seed=7 + len(self.asked),
            )
            self.asked[request_id] = Asked(request, prompt)
            self.engine.submit(request, prompt)

    @rule(wrong=st.sampled_from(["length", "token", "id", "count"]))
    def submit_what_is_refused(self, wrong: str) -> None:
        request_id = FIRST_ID + (0 if wrong == "id" else 100)
        prompt = (1,) * (CONTEXT + 1 if wrong == "length" else 3)
        request = Request(request_id=request_id, prompt_tokens=len(prompt), max_tokens=2)
        given = {"token": (1, 2, STOP + 1), "count": (1, 2)}.get(wrong, prompt)
        if wrong != "id" or self.asked:
            with pytest.raises(ValueError, match="got "):
                self.engine.submit(request, given)

    @rule(n=st.integers(1, 20))
    def step(self, n: int) -> None:
        for _ in range(n):
            assert (self.engine.step() is not None) or not self.engine.loop.has_work

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.engine.cancel(data.draw(st.sampled_from(sorted(self.asked))))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def disable(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.asked)))
        if request_id in self.engine.loop.sequences:
            self.disabled.add(request_id)
        self.engine.disable(request_id)

    @invariant()
    def nothing_is_lost_or_left_behind(self) -> None:
        if self.made is None:
            return
        made = self.engine
        made.loop.check()
        going = set(made.loop.sequences)
        assert set(made.executor.live) == going
        assert going | set(made.done) == set(self.asked)
        assert not going & set(made.done)

    def teardown(self) -> None:
        if self.made is None:  # the example ended before ``build``
            return
        made = self.engine
        while made.loop.has_work:
            made.step()
        self.nothing_is_lost_or_left_behind()
        assert made.loop.scheduler.pool.n_held == 0
        assert not remnants(made, self.asked)
        self.seen.update(g.reason for g in made.done.values())
        preempted = made.ledger.requests["preemptions"]
        for name in SEEN:
            self.seen[name] += int(made.ledger.requests[name].sum())
        for request_id, generation in made.done.items():
            assert generation.reason in REASONS
            # Pruned KV recomputed densely differs; what may be evicted depends on who shares it.
            recomputed = preempted[made.ledger.row_of[request_id]] > 0
            approximate = recomputed and self.preset in ("sparse", "evicting")
            shared = made.prefix_caching and self.preset == "evicting"
            if request_id in self.disabled or approximate or shared:
                continue
            tokens, reason = alone(self.asked[request_id], self.preset, self.page_tokens)
            if generation.reason == "cancelled":
                tokens, reason = tokens[: len(generation.tokens)], "cancelled"
            assert (generation.tokens, generation.reason) == (tokens, reason)
            self.seen["compared"] += 1


class TestTheEngineKeepsItsInvariants(EngineMachine.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

    def runTest(self) -> None:  # noqa: N802 - unittest's name
        EngineMachine.seen.clear()
        super().runTest()
        rare = [*REASONS, *SEEN, "compared"]
        assert all(EngineMachine.seen[name] for name in rare), EngineMachine.seen
