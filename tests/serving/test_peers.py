"""Published schedulers at work in the loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from controllers.peers import PEERS
from controllers.presets import PRESETS, get_preset
from controllers.schedulers import LearnedRank, SkipJoinMlfq
from controllers.serving.loop import ServingLoop
from tests.serving.worlds import MS, STEP_LAW, World, limits, preset, request, uniform, world


def served(w: World) -> list[int]:
    """Who got a token, step by step; one slot."""
    return [plan.sampled[0] for plan in w.run() if plan.sampled]


def test_an_oracle_law_without_lengths_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="SrptOracle is an oracle: it runs only where true"):
        ServingLoop(limits(), get_preset("srpt_oracle"), STEP_LAW)


@pytest.mark.parametrize("name", ["baseline", "sjf"])
def test_lengths_for_a_law_that_is_no_oracle_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no oracle and must not be given lengths"):
        ServingLoop(limits(), get_preset(name), STEP_LAW, oracle={0: 1})


def test_a_request_the_oracle_does_not_know_is_refused_and_leaves_no_trace() -> None:
    loop = ServingLoop(limits(), get_preset("srpt_oracle"), STEP_LAW, oracle={1: 8})
    with pytest.raises(ValueError, match="the oracle must know every request; got request_id=0"):
        loop.submit(request(0), 0)
    loop.submit(request(1), 0)
    loop.check()
    assert list(loop.sequences) == [1]


def test_the_users_smaller_priority_enters_first() -> None:
    w = world(preset("user_priority"), max_seqs=1)
    w.submit(*(request(i, length=1, priority=rank) for i, rank in enumerate((0, 5, -1, 0))))
    assert served(w) == [2, 0, 3, 1]


def test_shortest_job_goes_by_the_guess_and_the_oracle_by_the_truth() -> None:
    for name, expected in (("sjf", [1, 0]), ("srpt_oracle", [0, 1])):
        w = world(preset(name), max_seqs=1)
        w.submit(request(0, length=2, predicted_tokens=9), request(1, length=7, predicted_tokens=3))
        assert list(dict.fromkeys(served(w))) == expected


def toy_queue(using: str, **changes: object) -> float:
    """Mean seconds in system of 40 requests of very unequal length at one slot, load about .9."""
    w = world(preset(using, **changes), max_seqs=1, n_pages=60, max_context=200, token_budget=64)
    arrivals, at_ns = [], 0
    for i in range(40):
        length = 1 + int(60 * uniform(i, 3) ** 4)
        guess = max(1, round(length * (0.3 + 2 * uniform(i, 4))))
        ask = {"predicted_tokens": guess, "client": "abc"[i % 3], "priority": i % 2}
        arrivals.append((at_ns, request(i, 4, length, **ask)))
        at_ns += int(-np.log(1 - uniform(i, 5)) * 85 * MS)
    while arrivals or w.loop.has_work:
        while arrivals and (arrivals[0][0] <= w.now_ns or not w.loop.has_work):
            w.now_ns = max(w.now_ns, arrivals[0][0])
            w.submit(arrivals.pop(0)[1])
        w.step()
    requests = w.loop.ledger.requests
    return float(np.mean(requests["finish_ns"] - requests["arrival_ns"])) / 1e9


def test_the_oracle_has_the_least_mean_time_in_system_of_all() -> None:
    best = toy_queue("srpt_oracle", quantum_tokens=1)
    others = {n: toy_queue(n) for n in ("baseline", "scheduling", "seed", *PEERS)}
    assert best < min(others.values())
    assert max(others["srpt_oracle"], others["sjf"]) < others["baseline"]


def starved(using: str, steps: int, **changes: object) -> tuple[World, list[int]]:
    """A long request in a stream of short ones at one slot; the plans in which it got a token."""
    w = world(preset(using, **changes), max_seqs=1, n_pages=60, max_context=200, token_budget=64)
    w.submit(request(0, 4, 40, predicted_tokens=40))
    got = []
    for _ in range(steps):
        while len(w.loop.scheduler.waiting) < 2:
            w.submit(request(len(w.loop.ledger.requests), 4, 3, predicted_tokens=3))
        got += [plan.step for plan in (w.step(),) if 0 in plan.sampled]
    return w, got


def test_shortest_job_first_starves_a_long_request() -> None:
    w = world(preset("sjf"), max_seqs=1)
    w.submit(request(0, 4, 3, predicted_tokens=3), request(1, 4, 20, predicted_tokens=20))
    for _ in range(300):
        w.step()
        while len(w.loop.scheduler.waiting) < 3:
            w.submit(request(len(w.loop.ledger.requests), 4, 3, predicted_tokens=3))
    assert w.loop.ledger.requests["tokens"][1] == 0


def test_the_guard_of_learned_rank_fires_after_200_plans_and_lasts_ten_tokens() -> None:
    w, got = starved("ltr", 700)
    bursts = np.split(np.array(got), np.flatnonzero(np.diff(got) > 1) + 1)
    assert [len(burst) for burst in bursts] == [10] * 3, "ten tokens each time"
    waits = [later[0] - earlier[-1] for earlier, later in pairwise(bursts)]
    assert all(200 <= wait <= 204 for wait in waits), "and 200 plans between, plus one residence"
    assert w.loop.ledger.requests["preemptions"][0] == 3


def test_without_its_guard_learned_rank_starves() -> None:
    _, got = starved("ltr", 700, priority=LearnedRank(guard_steps=1e6))
    assert len(got) <= 10, "only the tokens before the stream came"


def test_mlfq_demotes_the_long_request_and_promotes_it_after_its_wait() -> None:
    law = SkipJoinMlfq(quantum_s=0.02, promote_after_s=0.5)
    w, got = starved("mlfq", 400, priority=law, quantum_tokens=4)
    assert w.loop.ledger.requests["preemptions"][0] >= 2, "demoted and displaced"
    gaps = np.diff(got) * 6e-3  # a decode step takes about 6 ms here
    assert gaps.max() > 0.3, "it waits below the newcomers"
    assert gaps.max() < 0.8, "and not for ever"
    never = replace(law, promote_after_s=1e6)
    _, without = starved("mlfq", 400, priority=never, quantum_tokens=4)
    assert len(without) < len(got)


def test_the_peers_are_no_rows_of_the_papers_table() -> None:
    assert tuple(PRESETS) == (
        "baseline",
        "sampling",
        "scheduling",
        "attention",
        "full",
        "seed",
        "best",
    )
    assert set(PEERS) == {"user_priority", "sjf", "ltr", "srpt_oracle", "mlfq", "vtc"}


def test_waits_in_plans_restart_where_waits_in_seconds_do() -> None:
    w = world(preset("ltr"), max_seqs=1)
    w.submit(request(0, 3, 25, predicted_tokens=25))
    steps = []
    for _ in range(12):
        w.step()
        steps.append(w.loop.sequences[0].wait_since_step)
    assert steps == [0] * 9 + [10] * 3
