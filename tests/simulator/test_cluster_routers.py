from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Arrival, ClusterConfig, Residual, TraceModel, Workload, run_workload
from simulator.cluster_fleet import Member
from simulator.description import ClusterPlan, Group
from simulator.routers import make_router, seconds_per_token
from simulator.routers_work import BATCH, ExpectedWork
from tests.simulator.clusters import EVEN, MS

LIMITS = EngineLimits(max_seqs=8, token_budget=64, n_pages=6, max_context=96)
LAW = StepLaw(
    base_s=1e-2,
    per_decode_s=1e-4,
    per_kv_token_s=1e-6,
    per_prompt_token_s=1e-5,
    per_prompt_square_s=0.0,
)


@dataclass
class Reported:
    """A server that reports what it is told to."""

    outstanding_tokens: int = 0
    n_running: int = 1
    n_waiting: int = 0
    ledger: Ledger = field(default_factory=Ledger)


def member(number: int, load: int = 0, law: StepLaw = LAW, role: str = "both") -> Member:
    return Member(
        number=number,
        machine=number,
        server=Reported(load),
        step_law=law,
        limits=LIMITS,
        role=role,
    )


def ask(request_id: int = 0, pages: tuple[int, ...] = (), task: str = "a") -> Arrival:
    request = Request(request_id=request_id, prompt_tokens=40, max_tokens=40, task_class=task)
    return Arrival(request=request, arrival_ns=0, trace_index=0, page_hashes=pages)


def choices(router, members: list[Member], n: int) -> list[int]:
    return [router.choose(members, ask(i)) for i in range(n)]


def test_round_robin_keeps_a_circle_for_each_role() -> None:
    router = make_router("round_robin")
    prefill = [member(i, role="prefill") for i in range(2)]
    decode = [member(2 + i, role="decode") for i in range(3)]
    found = [router.choose(group, ask()) for group in (prefill, decode) * 4]
    assert found == [0, 0, 1, 1, 0, 2, 1, 0]


def test_power_of_two_takes_the_less_loaded_of_two_and_is_seeded() -> None:
    members = [member(i, load) for i, load in enumerate((30, 20, 10, 0))]
    one, two = (choices(make_router("power_of_two", seed=5), members, 400) for _ in range(2))
    assert one == two
    assert one != choices(make_router("power_of_two", seed=6), members, 400)
    counts = np.bincount(one, minlength=4)
    assert counts[0] == 0  # never the most loaded: the other of its pair is better
    share = counts / counts.sum()
    assert np.allclose(share, [0, 1 / 6, 1 / 3, 1 / 2], atol=0.08)
    assert choices(make_router("power_of_two"), members[:1], 3) == [0, 0, 0]


def test_prefix_aware_prefers_the_longest_leading_match_within_the_load_bound() -> None:
    router = make_router("prefix_aware")
    members = [member(0, 10), member(1, 10), member(2, 8)]
    router.placed(members[0], ask(pages=(1, 2)))
    router.placed(members[1], ask(pages=(1, 2, 3)))
    assert router.choose(members, ask(pages=(1, 2, 3, 4))) == 1
    assert router.choose(members, ask(pages=(7, 1))) == 2  # not leading: the least loaded
    members[1].server.outstanding_tokens = 90
    assert router.choose(members, ask(pages=(1, 2, 3, 4))) == 0


def test_prefix_aware_forgets_what_the_pool_cannot_hold() -> None:
    router = make_router("prefix_aware")
    members = [member(0, 1), member(1, 1)]
    router.placed(members[1], ask(pages=(1, 2)))
    assert router.choose(members, ask(pages=(1, 2))) == 1
    router.placed(members[1], ask(pages=(5, 6, 7, 8, 9, 10)))
    assert router.choose(members, ask(pages=(1, 2))) == 0
    assert router.choose(members, ask(pages=(5,))) == 1


def test_fastest_weighs_outstanding_tokens_by_the_servers_own_law() -> None:
    slow = StepLaw(**{name: 3 * value for name, value in LAW.to_json().items()})
    members = [member(0, 150, slow), member(1, 300)]
    assert seconds_per_token(members[0], 80) == pytest.approx(3 * seconds_per_token(members[1], 80))
    assert make_router("least_loaded").choose(members, ask()) == 0
    assert make_router("fastest").choose(members, ask()) == 1
    rows = 6 * 16 // 80  # of the request's full length, as many as the pool holds
    assert seconds_per_token(members[1], 80) == LAW.step_s(rows, rows * 80, 0, 0) / rows


def finished(of: Member, request_id: int, task: str, tokens: int, coverage: float) -> Arrival:
    """Let a server complete a request of ``tokens`` tokens at a mean ``coverage``."""
    arrival, ledger = ask(request_id, task=task), of.server.ledger
    ledger.submitted(request_id, 40, 40, 0)
    for _ in range(tokens):
        ledger.sampled(request_id, 1)
        ledger.served(request_id, 1, coverage)
    ledger.finished(request_id, 1, "stop")
    return arrival


def test_expected_work_learns_lengths_and_entropy_aware_what_coverage_keeps() -> None:
    server = member(0)
    dense, pruned = ExpectedWork(), ExpectedWork(lambda coverage: coverage - 0.5)
    before = dense.expected_s(server, ask(task="short"))
    for i in range(BATCH):
        for router in (dense, pruned):
            router.placed(server, ask(i, task="short"))
        arrival = finished(server, i, "short", 5, 0.9)
        for router in (dense, pruned):
            router.left(server, arrival)
    after = dense.expected_s(server, ask(task="short"))
    length = (BATCH * 5 + 4 * 20) / (BATCH + 4)
    expected = 40 * 1e-5 + length * (1e-4 + 1e-6 * (40 + length / 2))
    assert after == pytest.approx(expected)
    assert after < before
    kept = 40 * 1e-5 + length * (1e-4 + 0.4 * 1e-6 * (40 + length / 2))
    assert pruned.expected_s(server, ask(task="short")) == pytest.approx(kept)
    assert dense.expected_s(server, ask(task="other")) == before


def test_expected_work_prices_prompts_and_outputs_where_they_are_computed() -> None:
    whole, prompt, output = (
        ExpectedWork().expected_s(member(0, role=role), ask())
        for role in ("both", "prefill", "decode")
    )
    assert prompt == pytest.approx(40 * 1e-5)
    assert whole == pytest.approx(prompt + output)


def test_expected_work_balances_what_it_has_sent() -> None:
    router, members = ExpectedWork(), [member(0), member(1)]
    for i in range(4):
        chosen = router.choose(members, ask(i))
        router.placed(members[chosen], ask(i))
        assert chosen == i % 2
    router.left(members[1], ask(1))
    assert router.choose(members, ask(9)) == 1


def test_an_unknown_router_is_named() -> None:
    with pytest.raises(ValueError, match=r"router must be one of .*'random'"):
        make_router("random")
    with pytest.raises(ValueError, match="entropy_aware needs the kept shares"):
        make_router("entropy_aware")


def test_prefix_aware_finds_more_prompt_pages_than_turns_do(
    model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]
) -> None:
    arrivals = []
    for i in range(24):
        tokens = [i % 3] * 64  # three prompts, of four pages each
        request = Request(request_id=i, prompt_tokens=65, max_tokens=6, temperature=0.8)
        hashes = page_hashes([*tokens, i], 16, "m")
        arrivals.append(
            Arrival(request=request, arrival_ns=i * 3 * MS, trace_index=0, page_hashes=hashes)
        )
    found = {}
    for router in ("round_robin", "prefix_aware"):
        plan = ClusterPlan(groups=(Group(count=2),))
        config = configure("baseline", step_law=EVEN, cluster=plan, router=router)
        result = run_workload(model, residual, Workload(arrivals=tuple(arrivals)), config)
        assert result.mode == "online"
        assert result.mode_reason == "requests share prompt pages"
        found[router] = result.metrics["prefix_hit_tokens"]
    assert found["prefix_aware"] > found["round_robin"] > 0


def test_unlike_servers_share_work_by_speed(
    model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]
) -> None:
    slow = StepLaw(**{name: 4 * value for name, value in EVEN.to_json().items()})
    plan = ClusterPlan(groups=(Group(name="fast"), Group(name="slow", step_law=slow)))
    requests = [
        Request(request_id=i, prompt_tokens=10, max_tokens=20, temperature=0.8) for i in range(40)
    ]
    arrivals = tuple(
        Arrival(request=r, arrival_ns=r.request_id * MS, trace_index=0, output_tokens=20)
        for r in requests
    )
    means = {}
    for router in ("round_robin", "fastest"):
        config = configure("baseline", step_law=EVEN, cluster=plan, router=router)
        result = run_workload(model, residual, Workload(arrivals=arrivals), config)
        means[router] = result.metrics["e2e_s"]["mean"]
    assert means["fastest"] < 0.8 * means["round_robin"]
