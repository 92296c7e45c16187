"""The service counters: what is charged, who is lifted, and what a queue reads."""

from __future__ import annotations

import numpy as np

from controllers.serving.request import Sequence
from controllers.serving.service import ServiceCounters
from tests.serving.worlds import World, preset, request, world


def queued(request_id: int, client: str, prompt: int = 5, arrival_ns: int = 0) -> Sequence:
    return Sequence(request=request(request_id, prompt, client=client), arrival_ns=arrival_ns)


def arrived(*sequences: Sequence) -> ServiceCounters:
    counters = ServiceCounters()
    for sequence in sequences:
        counters.arrive(sequence)
    return counters


def test_a_prompt_counts_once_and_each_output_token_twice() -> None:
    a = queued(0, "a", prompt=7)
    counters = arrived(a)
    counters.admit(a)
    counters.admit(a)
    counters.token("a")
    assert counters.counters() == {"a": 9.0}


def test_an_idle_client_is_lifted_to_the_least_served_one_that_queues() -> None:
    a, b, c = queued(0, "a", 10), queued(1, "b", 4), queued(2, "a")
    counters = arrived(a, b, c)
    counters.admit(a)
    counters.arrive(queued(3, "new"))
    assert counters.counters()["new"] == 0.0, "b queues and has had nothing"
    counters.admit(b)
    counters.token("b")
    d = queued(4, "d")
    counters.leave(b)
    counters.arrive(d)
    assert counters.counters()["d"] == 0.0, "new queues and has had nothing"


def test_a_client_with_credit_keeps_none_of_it_from_its_idle_time() -> None:
    a, b = queued(0, "a", 100), queued(1, "a", 100)
    counters = arrived(a, b)
    counters.admit(a)
    counters.arrive(queued(2, "b"))
    assert counters.counters() == {"a": 100.0, "b": 100.0}


def test_when_nobody_queues_the_last_client_that_did_sets_the_lift() -> None:
    a = queued(0, "a", 30)
    counters = arrived(a)
    counters.admit(a)
    counters.leave(a)
    counters.arrive(queued(1, "b"))
    assert counters.counters() == {"b": 30.0}


def test_a_request_that_gives_up_in_the_queue_is_not_charged() -> None:
    a = queued(0, "a", 30)
    counters = arrived(a, queued(1, "a"))
    counters.leave(a)
    assert counters.counters() == {"a": 0.0}


def test_each_queued_request_reads_the_counter_its_client_will_have_by_then() -> None:
    late = queued(0, "a", 5, arrival_ns=9)
    early, other = queued(1, "a", 7, arrival_ns=2), queued(2, "b", 4, arrival_ns=5)
    counters = arrived(early, other, late)
    assert counters.read([late, other, early]).tolist() == [7.0, 0.0, 0.0]


def test_one_client_alone_reads_zero() -> None:
    sequences = [queued(i, "a") for i in range(3)]
    assert counters_all_zero(arrived(*sequences).read(sequences))


def counters_all_zero(found: np.ndarray) -> bool:
    return not found.any()


def backlogged(using: str, steps: int) -> tuple[World, list[float]]:
    """Client a floods with long requests, b with short ones; b less a's service after each step."""
    w = world(preset(using), max_seqs=2, n_pages=20, token_budget=16)
    gaps, submitted = [], 0
    for _ in range(steps):
        for client, prompt, length in (("a", 12, 12), ("b", 4, 3)):
            waiting = [s for s in w.loop.scheduler.waiting.values() if s.request.client == client]
            for _ in range(4 - len(waiting)):
                w.submit(request(submitted, prompt, length, client=client))
                submitted += 1
        w.step()
        service = w.loop.client_service
        gaps.append(service["a"] - service["b"])
    return w, gaps


def test_two_backlogged_clients_stay_within_the_published_bound_under_vtc() -> None:
    # 2 max(w_p L_in, w_q M): the longest prompt is 12, a full batch holds 2 requests of 24 tokens.
    bound = 2 * max(1.0 * 12, 2.0 * 2 * 24)
    _, gaps = backlogged("vtc", 400)
    assert max(map(abs, gaps)) <= bound
    assert max(map(abs, gaps)) > 12, "the gap must move, or the bound says nothing"


def test_first_come_first_served_breaks_that_bound() -> None:
    _, gaps = backlogged("baseline", 400)
    assert max(map(abs, gaps)) > 2 * max(1.0 * 12, 2.0 * 2 * 24)
