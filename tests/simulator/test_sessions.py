"""Closed-loop users: conversations grow, turns wait for turns, prompt pages are shared."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from controllers.serving.limits import EngineLimits
from simulator.arrival import Arrival
from simulator.run import run_workload
from simulator.sessions import Sessions, draw_turns, session_workload
from simulator.workload import Asking
from traces.lengths import Lognormal

PAGE = 16
TALK = Sessions(
    users=6,
    requests_per_user=40,
    turns=4.0,
    think_s=3.0,
    system_tokens=40,
    new_text=Lognormal(mean=20.0, cv=0.5),
    answer=Lognormal(mean=15.0, cv=0.5),
    max_total=400,
)


def by_user(arrivals: list[Arrival]) -> dict[str, list[Arrival]]:
    users: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        users.setdefault(arrival.request.client, []).append(arrival)
    return users


def test_every_user_has_one_chain_of_requests(trace):
    users = by_user(list(session_workload(trace, TALK, seed=1).arrivals))
    assert len(users) == TALK.users
    for chain in users.values():
        assert len(chain) == TALK.requests_per_user
        assert chain[0].after is None
        for before, arrival in pairwise(chain):
            assert arrival.after == before.request.request_id
            assert arrival.arrival_ns == 0


def test_a_turns_prompt_is_all_that_was_said_before_and_new_text(trace):
    turns = draw_turns(TALK, np.random.default_rng(1))
    same = turns.conversation[:, 1:] == turns.conversation[:, :-1]
    grown = turns.prompt_tokens[:, 1:] - turns.prompt_tokens[:, :-1] - turns.output_tokens[:, :-1]
    assert same.mean() == pytest.approx(1 - 1 / TALK.turns, abs=0.08)
    assert (grown[same] >= 1).all()
    assert (turns.prompt_tokens[:, 1:][~same] <= 40 + 200).all()
    assert (turns.prompt_tokens + turns.output_tokens <= TALK.max_total).all()


def test_think_times_have_the_mean_and_spread_asked_for(trace):
    talk = Sessions(users=100, requests_per_user=100, think_s=3.0, think_cv=0.5)
    think_s = session_workload(trace, talk, seed=1).column("think_ns")[100:] / 1e9
    assert think_s.mean() == pytest.approx(3.0, rel=0.03)
    assert think_s.std() / think_s.mean() == pytest.approx(0.5, rel=0.05)


def test_turns_share_the_pages_of_the_conversation_and_others_those_of_the_system_text(trace):
    chain = by_user(list(session_workload(trace, TALK, seed=1).arrivals))
    system_pages = TALK.system_tokens // PAGE
    shared = 0
    for arrivals in chain.values():
        for before, arrival in pairwise(arrivals):
            pages = before.request.prompt_tokens // PAGE
            assert len(arrival.page_hashes) == arrival.request.prompt_tokens // PAGE
            common = set(before.page_hashes) & set(arrival.page_hashes)
            if arrival.request.prompt_tokens > before.request.prompt_tokens + before.output_tokens:
                shared += len(common) == pages
            assert len(common) in (system_pages, pages)
    assert shared > 50
    first, second = (arrivals[0] for arrivals in list(chain.values())[:2])
    common = set(first.page_hashes) & set(second.page_hashes)
    assert len(common) == system_pages


def test_equal_seeds_talk_alike_and_others_do_not(trace):
    talks = [session_workload(trace, TALK, seed=seed) for seed in (1, 1, 2)]
    assert tuple(talks[0].arrivals) == tuple(talks[1].arrivals) != tuple(talks[2].arrivals)


def test_answers_are_no_longer_than_allowed(trace):
    made = session_workload(trace, TALK, seed=1, asking=Asking(max_tokens=5))
    assert (made.column("output_tokens") <= 5).all()
    assert (made.column("max_tokens") <= 5).all()


def test_a_turn_comes_its_think_time_after_the_one_before_and_finds_its_prompt(
    trace, model, residual, configure
):
    made = session_workload(trace, replace(TALK, requests_per_user=15), seed=1)
    roomy = EngineLimits(max_seqs=8, token_budget=256, n_pages=6000, max_context=512)
    result = run_workload(model, residual, made, configure("baseline", limits=roomy))
    rows = result.ledger.requests
    at = {request_id: row for row, request_id in enumerate(rows["request_id"].tolist())}
    turns = 0
    for arrival in made.arrivals:
        if arrival.after is None:
            continue
        row, before = at[arrival.request.request_id], at[arrival.after]
        assert rows["arrival_ns"][row] == rows["finish_ns"][before] + arrival.think_ns
        pages = int(rows["prompt_tokens"][before]) // PAGE
        if arrival.page_hashes[:pages] == made.arrivals[arrival.after].page_hashes[:]:
            turns += 1
            assert rows["prefix_hit_tokens"][row] == pages * PAGE
    assert turns > 40


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"users": 0}, "users must be >= 1"),
        ({"turns": 0.5}, "turns must be >= 1"),
        ({"think_s": -1.0}, "think_s must be finite and >= 0"),
        ({"system_tokens": 8191}, "max_total must leave room after the system text"),
    ],
)
def test_a_bad_setting_is_named(change, named: str):
    with pytest.raises(ValueError, match=named):
        Sessions(**({"users": 1, "requests_per_user": 1} | change))


def test_users_of_a_session_do_not_give_up(trace):
    with pytest.raises(ValueError, match="users of a session stay"):
        session_workload(trace, TALK, seed=1, asking=Asking(cancel_share=0.1))
