from __future__ import annotations

import numpy as np
import simpy

from controllers.serving.ledger import NEVER, Ledger
from simulator import Workload
from simulator.cluster import Front
from simulator.cluster_agenda import Agenda, Moment
from simulator.merge import FOLDS, front_ledger, lost_tokens, merged
from simulator.server import LOST, TRANSFERRED, WAITED
from tests.simulator.clusters import arrival

ONES = tuple(np.ones(1, np.float32) for _ in range(4))


def served(ledger: Ledger, request_id: int, began_ns: int, tokens: int, first: int = 0) -> None:
    """Let a request take part in steps of 10 ns from ``began_ns``, one token each."""
    for i in range(tokens):
        now_ns = began_ns + 10 * i
        ledger.served(request_id, now_ns, 0.5 if i else None, now_ns + 10)
        ledger.sampled(request_id, now_ns + 10)
        ledger.token_rows([request_id], [first + i], now_ns + 10, ONES, [0.5])
        ledger.ran(ledger.step_count, now_ns, 10, int(i > 0), int(i == 0), 1, 1, 1, 0, 0)


def one_row(ledger: Ledger, request_id: int) -> dict[str, float]:
    row = ledger.row_of[request_id]
    return {name: column[row] for name, column in ledger.requests.columns.items()}


def lost_then_served(**levels: bool) -> tuple[Ledger, Ledger]:
    crashed, second = Ledger(**levels), Ledger(**levels)
    crashed.submitted(7, 20, 9, 100)
    crashed.hit(7, 16)
    served(crashed, 7, 110, 3)
    crashed.preempted(7)
    crashed.finished(7, 145, LOST)
    second.submitted(8, 5, 9, 90)
    served(second, 8, 90, 2)
    second.finished(8, 110, "length")
    second.submitted(7, 20, 9, 146)
    second.hit(7, 16)
    served(second, 7, 200, 4)
    second.finished(7, 240, "stop")
    return crashed, second


def test_every_column_of_a_request_has_a_rule_for_its_parts() -> None:
    assert set(FOLDS) == set(Ledger().requests.columns)


def test_a_lost_part_counts_for_what_it_cost_and_not_for_what_it_gave() -> None:
    crashed, second = lost_then_served()
    whole = merged((crashed, second))
    whole.check()
    found = one_row(whole, 7)
    assert whole.reasons == ["stop", "length"]  # in the place of its first part
    assert found["arrival_ns"] == 100
    assert (found["first_scheduled_ns"], found["first_token_ns"]) == (200, 210)
    assert (found["finish_ns"], found["tokens"], found["preemptions"]) == (240, 4, 1)
    assert (found["coverage_sum"], found["coverage_rows"]) == (1.5, 3)
    assert found["max_service_gap_ns"] == 200 - 140  # from its last service before the crash
    assert (found["prefix_hit_tokens"], found["rehit_tokens"]) == (16, 16)
    assert whole.tokens["position"].tolist() == [0, 1, 0, 1, 2, 3]
    assert np.all(np.diff(whole.tokens["now_ns"]) >= 0)
    assert whole.step_count == 9 == len(whole.steps)
    assert lost_tokens((crashed, second)) == 3
    assert crashed.reasons == [LOST]  # the inputs stay as they are


def test_without_token_rows_the_sums_of_lost_parts_are_left_out() -> None:
    parts = lost_then_served(record_tokens=False, record_steps=False)
    whole = merged(parts)
    assert sorted(whole.totals.requests["request_id"].tolist()) == [7, 8]
    assert whole.totals.requests["tokens"].sum() == 6
    assert whole.totals.n_steps == 9
    assert one_row(whole, 7)["tokens"] == 4


def test_a_transferred_request_has_the_first_token_of_one_server_and_the_end_of_another() -> None:
    decode, prefill = Ledger(), Ledger()  # the decode server started first
    prefill.submitted(1, 20, 9, 100)
    served(prefill, 1, 110, 1)
    prefill.finished(1, 120, TRANSFERRED)
    decode.submitted(1, 20, 9, 150)
    served(decode, 1, 160, 3, first=1)
    decode.finished(1, 190, "length")
    whole = merged((decode, prefill))
    found = one_row(whole, 1)
    assert (found["arrival_ns"], found["first_token_ns"], found["finish_ns"]) == (100, 120, 190)
    assert found["tokens"] == 4
    assert whole.tokens["position"].tolist() == [0, 1, 2, 3]
    assert whole.reasons == ["length"]


def test_a_request_between_servers_at_the_end_is_unfinished() -> None:
    crashed, _ = lost_then_served()
    whole = merged((crashed,))
    assert whole.reasons == [None]
    found = one_row(whole, 7)
    assert (found["finish_ns"], found["first_token_ns"], found["tokens"]) == (NEVER, NEVER, 0)
    assert found["last_service_step"] == whole.step_count  # no server's steps pass it by
    whole.check()


def test_what_the_router_did_comes_before_what_servers_did() -> None:
    server = Ledger()
    server.submitted(0, 10, 40, 60)
    served(server, 0, 60, 2)
    server.finished(0, 80, "stop")
    workload = Workload(arrivals=(arrival(0, 0), arrival(1, 0), arrival(2, 0)))
    front = {1: Front(5, 5, "rejected"), 0: Front(20, 60, WAITED), 2: Front(30, NEVER, None)}
    whole = merged((front_ledger(front, workload, server), server))
    reasons = dict(zip(whole.row_of, whole.reasons, strict=True))
    assert reasons == {0: "stop", 1: "rejected", 2: None}
    found = one_row(whole, 0)
    assert (found["arrival_ns"], found["first_scheduled_ns"]) == (20, 60)
    assert found["max_service_gap_ns"] == 40
    assert one_row(whole, 1)["max_tokens"] == 40
    whole.check()


def test_the_agenda_orders_an_instant_by_kind_and_key_whoever_put_it_there_first() -> None:
    env, seen = simpy.Environment(), []
    agenda = Agenda(env, lambda kind, key, note: act(kind, key, note))

    def act(kind: Moment, key: int, note: object) -> None:
        seen.append((int(env.now), kind, key, note))
        if (kind, key) == (Moment.ARRIVAL, 1):
            agenda.soon(Moment.DEPARTED, 4, "stop")
            agenda.at(5, Moment.TICK, 0)  # now, and still to come

    agenda.at(5, Moment.CRASH, 0)
    agenda.at(5, Moment.RETURN, 9, 2)
    agenda.at(5, Moment.RETURN, 9, 1)
    agenda.fix(
        np.array([7, 5, 5, 5]),
        np.array([Moment.ARRIVAL, Moment.CANCEL, Moment.ARRIVAL, Moment.ARRIVAL], np.int8),
        np.array([3, 2, 2, 1]),
    )
    agenda.at(5, Moment.READY, 8)
    env.run()
    assert seen == [
        (5, Moment.READY, 8, None),
        (5, Moment.ARRIVAL, 1, None),
        (5, Moment.ARRIVAL, 2, None),
        (5, Moment.RETURN, 9, 2),
        (5, Moment.RETURN, 9, 1),
        (5, Moment.CANCEL, 2, None),
        (5, Moment.CRASH, 0, None),
        (5, Moment.TICK, 0, None),
        (6, Moment.DEPARTED, 4, "stop"),
        (7, Moment.ARRIVAL, 3, None),
    ]
