"""Prefix caching and eviction in the live engine: what they must not change, and what they do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from backend.engine import Engine, Submission
from backend.eviction import PageScores
from backend.models import LoadedModel
from backend.pagemass import PageMass
from backend.sparse import SparseAttention
from controllers.preset import Preset
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Row
from controllers.serving.pages import HOLE
from controllers.serving.runlog import replay_commands, replay_plans
from tests.backend.tiny import ROOMY, STEP_LAW, prompt_of, sparse, submission, tokens_of

TIGHT = EngineLimits(max_seqs=4, token_budget=24, n_pages=16, max_context=200)
TEMPERATURES = (0.0, 0.7, 1.0)


def family(n: int, prompt: int = 70, common: int = 50, max_tokens: int = 30) -> list[Submission]:
    """Requests whose prompts begin alike; every third repeats the one before in full."""
    found = []
    for i in range(n):
        own = prompt_of(prompt - common, 50 + i - (i % 3 == 2))
        sent = submission(i, prompt, max_tokens, temperature=TEMPERATURES[i % 3])
        found.append(replace(sent, prompt=prompt_of(common, 7) + own))
    return found


def made(
    tiny: LoadedModel, limits: EngineLimits = ROOMY, preset: Preset | None = None, **fields: Any
) -> Engine:
    return Engine(
        tiny, preset or get_preset("baseline"), limits, STEP_LAW, ignore_stop=True, **fields
    )


def evicting(budget: int | None, burst: int = 1, name: str = "baseline") -> Preset:
    return replace(get_preset(name), kv_budget_pages=budget, kv_burst_pages=burst)


def long_ones(n: int) -> list[Submission]:
    return [submission(i, 150, 40, temperature=TEMPERATURES[i % 3]) for i in range(n)]


def twins_of(prompt: int) -> list[Submission]:
    sent = (submission(i, prompt, 9, temperature=0.0) for i in (0, 1))
    return [replace(each, prompt=prompt_of(prompt, 3)) for each in sent]


def one_by_one(engine: Engine, submissions: Sequence[Submission]) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {}
    for each in submissions:
        found |= tokens_of(engine, [each])
    return found


def total(engine: Engine, column: str) -> int:
    return int(engine.ledger.requests[column].sum())


def test_found_prefixes_leave_every_token_as_it_was(tiny: LoadedModel) -> None:
    asked = family(6)
    expected = tokens_of(made(tiny), asked)
    cached = made(tiny, prefix_caching=True)
    assert one_by_one(cached, asked) == expected
    # 70 tokens are four full pages of 16: three are common, all four where a prompt repeats.
    assert cached.ledger.requests["prefix_hit_tokens"].tolist() == [0, 48, 64, 48, 48, 64]
    cached.loop.check()


def test_prefixes_survive_preemption_chunks_and_reclaiming(tiny: LoadedModel) -> None:
    asked = family(9)
    expected = tokens_of(made(tiny), asked)
    pressed = made(tiny, TIGHT, prefix_caching=True)
    assert tokens_of(pressed, asked) == expected
    assert total(pressed, "preemptions") > 0
    assert total(pressed, "prefix_hit_tokens") > 0
    assert total(pressed, "rehit_tokens") > 0
    assert pressed.loop.scheduler.pool.n_held == 0


def test_a_prompt_known_in_full_and_page_aligned_is_still_answered(tiny: LoadedModel) -> None:
    twins = twins_of(64)
    expected = tokens_of(made(tiny), twins)
    cached = made(tiny, prefix_caching=True)
    assert one_by_one(cached, twins) == expected
    assert cached.ledger.requests["prefix_hit_tokens"].tolist() == [0, 48]


def test_a_hit_on_one_token_less_is_one_row_of_one_token(tiny: LoadedModel) -> None:
    twins = twins_of(65)
    expected = tokens_of(made(tiny), twins)
    cached = made(tiny, prefix_caching=True)
    assert one_by_one(cached, twins) == expected
    assert cached.ledger.requests["prefix_hit_tokens"].tolist() == [0, 64]


def test_sparse_rows_leave_shared_pages_exact(tiny: LoadedModel) -> None:
    using = sparse(0.6)
    pruning = SparseAttention(min_pages=1)
    cached = made(tiny, preset=using, prefix_caching=True, sparse=pruning)
    plain = made(tiny, preset=using, sparse=pruning)
    asked = family(4)
    assert one_by_one(cached, asked) == one_by_one(plain, asked)
    assert total(cached, "prefix_hit_tokens") > 0
    steps = cached.ledger.steps
    assert steps["page_units_read"].sum() < steps["page_units_dense"].sum()


def test_a_budget_nobody_reaches_changes_no_token(tiny: LoadedModel) -> None:
    asked = family(5)
    idle = made(tiny, preset=evicting(40))
    assert tokens_of(idle, asked) == tokens_of(made(tiny), asked)
    assert total(idle, "pages_evicted") == 0


def test_pages_given_up_are_freed_and_no_longer_read(tiny: LoadedModel) -> None:
    asked = long_ones(3)
    whole, kept = made(tiny), made(tiny, preset=evicting(5))
    tables: list[list[int]] = []
    kept.on_step = lambda plan, result: tables.extend(kept.loop.pages(plan).values())
    answers = tokens_of(kept, asked)
    tokens_of(whole, asked)
    assert [len(answers[i]) for i in range(3)] == [40, 40, 40]
    assert total(kept, "pages_evicted") >= 3 * 5
    assert max(table.count(HOLE) for table in tables) >= 6
    assert kept.ledger.steps["page_units_read"].sum() < whole.ledger.steps["page_units_read"].sum()
    assert kept.ledger.steps["pages_held"][-2] < whole.ledger.steps["pages_held"][-2]
    assert kept.loop.scheduler.pool.n_held == 0


def test_eviction_lets_more_requests_run_at_once(tiny: LoadedModel) -> None:
    small = EngineLimits(max_seqs=8, token_budget=256, n_pages=34, max_context=200)

    def most_at_once(preset: Preset) -> int:
        engine, counts = made(tiny, small, preset), []
        engine.on_step = lambda plan, _: counts.append(len(plan.rows))
        assert all(len(tokens) == 40 for tokens in tokens_of(engine, long_ones(6)).values())
        return max(counts)

    assert most_at_once(evicting(5)) > most_at_once(evicting(None))


def test_a_live_log_with_hits_preemptions_and_evictions_replays_exactly(tiny: LoadedModel) -> None:
    rows: list[dict[str, Any]] = []
    using = evicting(4, name="full")
    tighter = replace(TIGHT, n_pages=11)
    engine = made(tiny, tighter, using, prefix_caching=True, sink=rows.append)
    asked = family(10, max_tokens=40)
    engine.run([replace(s, cancel_after_tokens=9) if i == 4 else s for i, s in enumerate(asked)])
    for column in ("prefix_hit_tokens", "pages_evicted", "preemptions"):
        assert total(engine, column) > 0, column
    rows = json.loads(json.dumps([*rows, {"kind": "end", "now_ns": 0, "rows": len(rows)}]))
    assert replay_plans(rows, using).identical
    assert replay_commands(rows, using).identical


@pytest.mark.parametrize("informed", [False, True])
def test_the_least_attended_pages_go(informed: bool) -> None:  # noqa: FBT001
    scores = PageScores(20, rate=0.25, informed=informed)
    table = [3, 9, 4, HOLE, 11, 17, 0, 1]
    row = Row(5, 127, 1, True, 1.0, False, 2, 1)
    scores.open_pages([replace_row(row)], {5: table}, 16)
    shares = np.array([0.5, 0.01, 0.2, 0.0, 0.02, 0.2, 0.05, 0.02], np.float32)
    for scale in (1.0, 0.9, 1.1, 1.0):
        mass = PageMass(20, informed=informed)
        held = torch.tensor([page for page in table if page != HOLE])[None, None].int()
        shown = torch.tensor(shares[np.array(table) != HOLE] * scale)[None, None]
        mass.add(held, 1.0 - shown if informed else shown, shown)
        scores.observe([row], {5: table}, mass)
    assert scores.of(table).numpy() == pytest.approx(shares, rel=1e-5)  # the mean of the scales
    assert scores.evict([row], {5: table}) == {5: (1, 4)}


def replace_row(row: Row) -> Row:
    """Return the prompt row that wrote all of the table."""
    return row._replace(start=0, n_tokens=row.start + 1, evict=0)


def test_scores_follow_what_attention_does_now() -> None:
    scores = PageScores(4, rate=0.1)
    row, table = Row(0, 63, 1, True, 1.0, False), [0, 1, 2, 3]
    for turn in range(60):
        mass = PageMass(4, informed=False)
        now = torch.tensor([0.1, 0.7, 0.1, 0.1] if turn < 30 else [0.1, 0.1, 0.7, 0.1])
        mass.add(torch.tensor([[table]]).int(), now[None, None], None)
        scores.observe([row], {0: table}, mass)
    assert scores.of(table)[2] > 5 * scores.of(table)[1]


def test_a_reused_page_starts_without_a_score() -> None:
    scores = PageScores(2)
    row, mass = Row(0, 31, 1, True, 1.0, False), PageMass(2, informed=False)
    mass.add(torch.tensor([[[0, 1]]]).int(), torch.tensor([[[0.6, 0.4]]]), None)
    scores.observe([row], {0: [0, 1]}, mass)
    scores.open_pages([Row(1, 16, 3, False, 1.0, False)], {1: [0, 1]}, 16)
    assert scores.of([0, 1]).tolist() == pytest.approx([0.6, 0.0])
