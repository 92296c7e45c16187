"""Published schedulers as laws: the order each gives, its published constants, its odd inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core import LoadSignal, replay
from controllers.peers import PEERS
from controllers.presets import PRESETS, get_preset
from controllers.priority import PriorityLaw
from controllers.schedulers import (
    LearnedRank,
    MlfqState,
    ShortestJob,
    SkipJoinMlfq,
    SrptOracle,
    UserPriority,
    Vtc,
)
from controllers.serving.service import OUTPUT_WEIGHT, PROMPT_WEIGHT
from tests.strategies import load_signal

LAWS = [preset.priority for preset in PEERS.values()]


def order(law: PriorityLaw, signal: LoadSignal) -> list[int]:
    """Lanes in the order they are served; lanes that tie keep theirs."""
    with np.errstate(invalid="ignore"):  # unknown lengths; the loop's lanes do the same
        _, priority = law.update(law.init(signal), signal)
    return np.argsort(-priority, kind="stable").tolist()


def test_the_constants_are_the_published_ones() -> None:
    assert (LearnedRank().guard_steps, get_preset("ltr").quantum_tokens) == (200.0, 10)
    mlfq = SkipJoinMlfq()
    assert (mlfq.quantum_s, mlfq.promote_after_s) == (0.010, 3.0)
    assert (PROMPT_WEIGHT, OUTPUT_WEIGHT) == (1.0, 2.0)


def test_only_the_oracle_is_marked_as_one() -> None:
    known = {**PRESETS, **PEERS}.values()
    assert [p.name for p in known if p.priority.oracle] == ["srpt_oracle"]


def test_peers_are_found_by_name_and_differ_from_baseline_in_priority_alone() -> None:
    base = get_preset("baseline")
    for name, preset in PEERS.items():
        assert get_preset(name) is preset
        assert preset.name == name not in PRESETS
        assert (preset.temperature, preset.coverage) == (base.temperature, base.coverage)


def test_the_smallest_user_priority_goes_first() -> None:
    assert order(UserPriority(), load_signal(4, user_priority=[1, -2, 0, 1])) == [1, 2, 0, 3]


def test_user_priorities_of_twenty_four_bits_are_told_apart() -> None:
    signal = load_signal(2, user_priority=[2**24, 2**24 - 1])
    assert order(UserPriority(), signal) == [1, 0]


def test_the_least_predicted_work_goes_first_prompt_included() -> None:
    signal = load_signal(
        3, predicted_tokens=[100, 50, 60], prefill_s=[0.0, 0.3, 0.1], token_s=0.004
    )
    assert order(ShortestJob(), signal) == [2, 0, 1]


def test_the_oracle_sees_the_truth_where_the_prediction_errs() -> None:
    signal = load_signal(2, predicted_tokens=[10, 90], oracle_tokens=[500, 20])
    assert order(ShortestJob(), signal) == [0, 1]
    assert order(SrptOracle(), signal) == [1, 0]


def test_an_unknown_length_goes_last() -> None:
    lengths = [np.nan, 1e6, np.inf, 3.0]
    assert order(SrptOracle(), load_signal(4, oracle_tokens=lengths)) == [3, 1, 0, 2]
    assert order(ShortestJob(), load_signal(4, predicted_tokens=lengths)) == [3, 1, 0, 2]


def test_learned_rank_serves_the_shortest_prediction_first() -> None:
    signal = load_signal(3, predicted_tokens=[30, 10, 20], wait_steps=199)
    assert order(LearnedRank(), signal) == [1, 2, 0]


def test_the_guard_fires_at_two_hundred_plans_and_puts_the_longest_first() -> None:
    signal = load_signal(3, predicted_tokens=[4e6, 1, 2], wait_steps=[200, 199, 0])
    assert order(LearnedRank(), signal) == [0, 1, 2]
    early = signal._replace(wait_steps=np.float32([199, 199, 0]))
    assert order(LearnedRank(), early) == [1, 2, 0]


@given(st.integers(1, 2**22), st.integers(1, 2**22))
def test_promoted_requests_outrank_all_others_and_are_ranked_among_themselves(
    a: int, b: int
) -> None:
    signal = load_signal(3, predicted_tokens=[a, b, 1], wait_steps=[300, 300, 0])
    assert order(LearnedRank(), signal) == ([0, 1, 2] if a <= b else [1, 0, 2])


def levels(law: SkipJoinMlfq, *signals: LoadSignal) -> list[float]:
    return (-replay(law, signals)[:, 0]).tolist()


def test_a_request_joins_at_the_first_level_whose_quantum_covers_its_prefill() -> None:
    law = SkipJoinMlfq(quantum_s=1.0, levels=5)
    state = law.init(load_signal(5, prefill_s=[0.0, 1.0, 1.5, 4.5, 1e6]))
    assert state.level.tolist() == [0, 0, 1, 3, 4]


def test_a_request_sinks_a_level_each_time_its_quantum_is_used_up() -> None:
    law = SkipJoinMlfq(quantum_s=1.0, levels=4)
    served = [load_signal(served_s=s, prefill_s=0.0) for s in (0.0, 1.0, 1.1, 2.9, 3.1, 7.1, 1e5)]
    assert levels(law, *served) == [0, 0, 1, 1, 2, 3, 3]


def test_a_law_asked_seldom_finds_the_level_of_one_asked_often() -> None:
    law = SkipJoinMlfq(quantum_s=1.0, levels=8)
    often = [load_signal(served_s=s, prefill_s=0.0) for s in np.arange(0.0, 40.0, 0.25)]
    assert levels(law, *often)[-1] == levels(law, often[0], often[-1])[-1] == 5


def test_three_seconds_of_waiting_bring_a_request_back_to_the_top_with_a_fresh_quantum() -> None:
    law = SkipJoinMlfq(quantum_s=1.0, levels=4)
    fresh = load_signal(served_s=0.0, prefill_s=0.0)
    sunk = load_signal(served_s=10.0, wait_s=2.9, prefill_s=0.0)
    promoted = load_signal(served_s=10.0, wait_s=3.0, prefill_s=0.0)
    used = load_signal(served_s=10.5, prefill_s=0.0)
    again = load_signal(served_s=11.5, prefill_s=0.0)
    assert levels(law, fresh, sunk, promoted, used, again) == [0, 3, 0, 0, 1]


def test_mlfq_state_is_two_columns() -> None:
    law, signal = SkipJoinMlfq(), load_signal(3, served_s=2.0)
    state, _ = law.update(law.init(signal), signal)
    assert isinstance(state, MlfqState)
    assert state.start_s.tolist() == [2.0, 2.0, 2.0]


def test_the_least_served_client_goes_first() -> None:
    assert order(Vtc(), load_signal(3, client_service=[40.0, 0.0, 7.0])) == [1, 2, 0]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_no_peer_reads_entropy_or_deadlines(law: PriorityLaw) -> None:
    signal = load_signal(5, predicted_tokens=[5, 3, 9, 1, 7], oracle_tokens=[3, 1, 4, 1, 5])
    other = signal._replace(
        collapse_nats=np.float32([9, 0, 3, 1, 4]), slack_s=np.float32([-5, 0, 3, 1, 9])
    )
    assert order(law, signal) == order(law, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedRank(guard_steps=0.0), "guard_steps must be positive; got guard_steps=0.0"),
        (lambda: SkipJoinMlfq(quantum_s=-1.0), "quantum_s must be positive"),
        (lambda: SkipJoinMlfq(promote_after_s=float("nan")), "promote_after_s must be positive"),
        (lambda: SkipJoinMlfq(levels=1), r"levels must lie in \[2, 30\]"),
    ],
)
def test_bad_gains_are_refused_by_name(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
