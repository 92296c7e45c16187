"""Searches against a made-up machine whose latencies are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.pareto import Candidate, difference, front
from simulator.plan_bracket import RUNG
from simulator.plan_cost import Price, priced
from simulator.plan_figures import another_hour
from simulator.plan_search import Point, Question, drive, search
from simulator.plan_verdict import judge, spreads
from simulator.slo import parse_slo

SLO = parse_slo("ttft_p99<1s")


class Machine:
    """TTFT p99 = .1 / (1 - load), load = rate x noise / (capacity x servers)."""

    def __init__(self, capacity: float = 10.0, sd: float = 0.03) -> None:
        self.capacity, self.sd = capacity, sd
        self.asked: list[Point] = []

    def load(self, point: Point) -> float:
        noise = 0.0 if point.draw == 0 else np.random.default_rng(point.draw).standard_normal()
        return point.rate_per_s * math.exp(self.sd * noise) / (self.capacity * point.replicas)

    def figures(self, points) -> dict[Point, dict[str, float]]:
        self.asked += points
        return {p: {"ttft_s.p99": 0.1 / max(1.0 - self.load(p), 1e-3)} for p in points}


def question(**changes: object) -> Question:
    whole = {
        "slo": SLO,
        "rate_per_s": 40.0,
        "draws": 5,
        "replicas_max": 64,
        "rate_guess_per_s": 5.0,
    }
    return Question(**(whole | changes))


def answer(machine: Machine, **changes: object):
    asked = question(**changes)
    return drive({"baseline": search(asked, "baseline")}, machine.figures)["baseline"]


def test_without_noise_the_knee_is_where_the_closed_form_has_it():
    found = answer(Machine(sd=0.0))
    # .1 / (1 - r / 10) = 1 at r = 9
    assert found.knee.rate_per_s <= 9.0 < found.above
    assert found.above / found.knee.rate_per_s == pytest.approx(RUNG)


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.2])
def test_a_knee_meets_in_every_hour_and_the_next_rung_does_not(sd):
    machine = Machine(sd=sd)
    found = answer(machine)
    assert found.knee.verdict.status == "meets"
    assert found.above / found.knee.rate_per_s == pytest.approx(RUNG)
    hours = [Point("baseline", 1, found.above, draw) for draw in range(6)]
    figures = machine.figures(hours)
    recorded, *draws = (figures[hour] for hour in hours)
    assert not judge(SLO, recorded, draws).met
    assert found.knee.rate_per_s < 9.0


@pytest.mark.parametrize("guess", [0.2, 2.0, 8.8, 30.0, 300.0])
def test_any_first_guess_leads_to_the_same_knee(guess):
    found = answer(Machine(sd=0.0), rate_guess_per_s=guess)
    assert 9.0 / RUNG < found.knee.rate_per_s <= 9.0


@pytest.mark.parametrize("rate", [1.0, 8.0, 9.5, 40.0, 200.0])
def test_the_fewest_servers_meet_and_one_less_does_not(rate):
    found = answer(Machine(), rate_per_s=rate)
    assert found.fewest.verdict.met
    if found.fewest.replicas == 1:
        assert found.fewer is None
    else:
        assert found.fewer.replicas == found.fewest.replicas - 1
        assert not found.fewer.verdict.met


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_level_out_of_reach_says_which_clause_and_by_how_much(most):
    found = answer(Machine(sd=0.0), rate_per_s=100.0, replicas_max=most)
    assert not found.met
    assert found.fewest.replicas == most
    assert "ttft_p99<1s" in found.fewest.verdict.worst.line()
    assert "outside" in found.fewest.verdict.worst.line()


def test_a_level_that_no_load_meets_has_no_knee():
    class Slow(Machine):
        def figures(self, points):
            return {p: {"ttft_s.p99": 2.0} for p in points}

    found = answer(Slow())
    assert found.knee is None
    assert not found.met


def test_a_server_that_never_fails_has_a_knee_without_an_upper_end():
    class Endless(Machine):
        def figures(self, points):
            return {p: {"ttft_s.p99": 0.2} for p in points}

    found = answer(Endless(), head_start_rungs=3)
    assert found.above is None
    assert found.knee is not None
    assert found.fewest.replicas == 1


def test_searches_side_by_side_answer_as_they_do_alone():
    asked = question()
    machine = Machine()
    together = drive({n: search(asked, n) for n in ("a", "b")}, machine.figures)
    for name in ("a", "b"):
        assert together[name] == drive({name: search(asked, name)}, machine.figures)[name]


def test_a_search_needs_few_simulations():
    machine = Machine()
    answer(machine, rate_per_s=5.0, head_start_rungs=2)
    assert len(set(machine.asked)) <= 36


def test_a_level_that_every_request_must_keep_can_be_met():
    slo = parse_slo("ttft_p99<1s,goodput>=1")
    good = {"ttft_s.p99": 0.5, "goodput_share": 1.0}
    found = judge(slo, good, [good] * 3)
    assert found.met
    assert found.excess < 0.0
    assert not judge(slo, good, [good, good, {**good, "goodput_share": 0.9}]).met


def test_intervals_stay_within_what_a_figure_can_be():
    draws = [
        {"gpu_hours_per_million_tokens": cost, "utilisation": used, "preemptions": n, "x": 1.0}
        for cost, used, n in ((0.1, 0.2, 0.0), (3.0, 0.99, 7.0))
    ]
    found = spreads(draws)
    assert 0.0 < found["gpu_hours_per_million_tokens"].low < 0.1
    assert found["utilisation"].high == 1.0
    assert found["utilisation"].low == found["preemptions"].low == 0.0
    assert difference("preemptions", draws, draws[::-1]).low < 0.0  # a difference may be negative


def test_a_verdict_is_undecided_where_the_bound_lies_in_the_interval():
    hours = [{"ttft_s.p99": value} for value in (0.7, 0.8, 0.9, 1.0, 1.1)]
    assert judge(SLO, {"ttft_s.p99": 0.9}, hours).status == "undecided"
    assert judge(SLO, {"ttft_s.p99": 1.1}, hours).status == "misses"
    assert judge(SLO, {"ttft_s.p99": 0.1}, [{"ttft_s.p99": 0.1}] * 5).status == "meets"
    assert judge(SLO, {}, hours).status == "misses"
    beyond = [{"ttft_s.p99": value} for value in (2.0, 2.1, 2.2, 2.1, 2.0)]
    assert judge(SLO, {"ttft_s.p99": 0.9}, beyond).status == "misses"


def test_an_interval_holds_another_hour_in_95_of_100_cases():
    rng = np.random.default_rng(6)
    inside = 0
    for _ in range(2000):
        hours = np.exp(0.5 * rng.standard_normal(6))
        found = another_hour(hours[:5].tolist(), in_log=True)
        inside += found.low <= hours[5] <= found.high
    assert 0.935 <= inside / 2000 <= 0.965


def test_the_front_drops_what_is_worse_and_keeps_what_chance_could_rank():
    rng = np.random.default_rng(7)
    base = rng.standard_normal(5) * 0.1 + 1.0
    hours = {
        "best": [{"cost": b, "ttft": b} for b in base],
        "worse": [{"cost": b + 0.5, "ttft": b} for b in base],
        "trade": [{"cost": b + 0.5, "ttft": b - 0.5} for b in base],
        "chance": [{"cost": b + e, "ttft": b} for b, e in zip(base, base - 1.0, strict=True)],
    }
    points = [Candidate(name=name, hours=tuple(rows)) for name, rows in hours.items()]
    beaten = front(points, ("cost", "ttft"))
    assert beaten == {"best": None, "worse": "best", "trade": None, "chance": None}


def test_cost_counts_every_gpu_for_the_whole_span():
    price = Price(gpus=2, usd_per_gpu_hour=3.0)
    hour = {"generated_tokens": 5e5, "span_s": 1800.0, "busy_s": 1350.0}
    found = priced(hour, 3, price)
    # 3 servers x 2 GPUs x half an hour for half a million tokens
    assert found["gpu_hours_per_million_tokens"] == pytest.approx(6.0)
    assert found["usd_per_million_tokens"] == pytest.approx(18.0)
    assert found["utilisation"] == pytest.approx(0.25)
