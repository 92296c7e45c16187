from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ClusterConfig, Residual, TraceModel
from simulator.description import ClusterPlan, Failures, Group, Outage, Transfer
from simulator.server import LOST, TRANSFERRED
from tests.simulator.clusters import (
    LIMITS,
    MS,
    Serve,
    arrival,
    check_every_fate,
    columns,
    outage,
)

# A prompt of 10 tokens takes 5 ms on the link, and arrives 2 ms after it has left it.
LINK = Transfer(bytes_per_token=1000, bandwidth_bytes_per_s=2e6, latency_s=2e-3)


@pytest.fixture(scope="module")
def serve(model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]) -> Serve:
    return Serve(model, residual, configure)


def disaggregated(
    prefill: int = 1, decode: int = 1, outages: tuple[Outage, ...] = (), retries: int = 3
) -> ClusterPlan:
    return ClusterPlan(
        groups=(
            Group(name="prefill", count=prefill, role="prefill"),
            Group(name="decode", count=decode, role="decode"),
        ),
        failures=Failures(outages=outages, max_retries=retries),
        transfer=LINK,
    )


def test_the_first_token_comes_from_the_prefill_server_and_the_others_after_the_transfer(
    serve,
) -> None:
    result = serve([arrival(0, 0, 6)], disaggregated())
    prefill, decode = result.ledgers
    assert prefill.reasons == [TRANSFERRED]
    assert prefill.requests["tokens"].tolist() == [1]
    assert decode.requests["tokens"].tolist() == [5]
    assert decode.steps["prompt_tokens"].sum() == 0  # its KV came over the link
    ledger = result.ledger
    assert ledger.reasons == ["stop"]
    assert ledger.requests["tokens"].tolist() == [6]
    assert ledger.requests["first_token_ns"].tolist() == [MS]
    assert ledger.requests["finish_ns"].tolist() == [(1 + 7 + 5) * MS + 1]
    assert result.metrics["ttft_s"]["mean"] == 1e-3
    assert ledger.tokens["position"].tolist() == [0, 1, 2, 3, 4, 5]
    gap_ns = int(np.diff(ledger.tokens["now_ns"])[0])
    assert gap_ns == 8 * MS + 1
    ledger.check()


def test_a_link_carries_one_prompt_at_a_time(serve) -> None:
    result = serve([arrival(i, 0, 4) for i in range(3)], disaggregated())
    came = np.sort(result.ledgers[1].requests["arrival_ns"])
    assert came.tolist() == [MS + 1 + i * 5 * MS + 2 * MS for i in range(1, 4)]


def test_two_senders_have_two_links(serve) -> None:
    result = serve([arrival(i, 0, 4) for i in range(2)], disaggregated(prefill=2))
    assert np.diff(result.ledgers[2].requests["arrival_ns"]).tolist() == [0]


def test_a_request_of_one_token_never_leaves_the_prefill_server(serve) -> None:
    result = serve([arrival(0, 0, 1)], disaggregated())
    assert result.ledgers[0].reasons == ["stop"]
    assert result.ledgers[1].reasons == []


def test_a_crashed_decode_server_costs_its_tokens_and_a_new_prefill_of_what_was_known(
    serve,
) -> None:
    result = serve([arrival(0, 0, 9)], disaggregated(decode=2, outages=(outage(1, 11.5, 50.0),)))
    prefill, first, second = result.ledgers
    assert prefill.reasons == [TRANSFERRED]
    assert first.reasons == [LOST]
    assert first.requests["tokens"].tolist() == [3]
    assert second.requests["tokens"].tolist() == [8]
    assert second.steps["prompt_tokens"].sum() == 11  # the prompt and the token that stands
    assert result.ledger.tokens["position"].tolist() == list(range(9))
    assert result.ledger.requests["first_token_ns"].tolist() == [MS]
    assert result.metrics["lost_tokens"] == 3


def test_kv_on_the_link_of_a_crashed_sender_is_computed_again(serve) -> None:
    result = serve([arrival(0, 0, 5)], disaggregated(outages=(outage(0, 3.0, 50.0),)))
    decode = result.ledgers[1]
    assert decode.requests["arrival_ns"].tolist() == [3 * MS + 1]
    assert decode.steps["prompt_tokens"].sum() == 11
    assert result.ledger.tokens["position"].tolist() == list(range(5))
    assert result.metrics["retries"] == 0  # no server lost it


def test_a_user_may_cancel_while_the_kv_is_on_the_link(serve) -> None:
    result = serve([arrival(0, 0, 5, cancel_ns=4 * MS)], disaggregated())
    assert result.ledger.reasons == ["cancelled"]
    assert result.ledger.requests["tokens"].tolist() == [1]
    assert result.ledger.requests["finish_ns"].tolist() == [4 * MS]
    assert result.ledgers[1].reasons == []


def test_mode_online_refuses_prefill_and_decode_groups(serve) -> None:
    with pytest.raises(ValueError, match="mode online serves no prefill and decode groups"):
        serve([arrival(0, 0, 5)], disaggregated(), mode="online")


@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=9),
    patience=st.sampled_from([None, 6]),
    crashes=st.lists(
        st.builds(outage, st.integers(0, 3), st.integers(0, 60).map(lambda h: h / 2), st.just(4.0)),
        max_size=4,
    ),
    router=st.sampled_from(["round_robin", "least_loaded"]),
)
@settings(max_examples=25)
def test_disaggregated_requests_complete_once_and_alike_in_steps_and_in_macro_steps(
    serve, lengths, patience, crashes, router
) -> None:
    lengths.sort()
    arrivals = [
        arrival(i, at_ms, tokens, cancel_ns=(at_ms + patience) * MS if patience and i % 2 else None)
        for i, (at_ms, tokens) in enumerate(lengths)
    ]
    plan = disaggregated(2, 2, tuple(crashes))
    tight = dataclasses.replace(LIMITS, n_pages=5)
    steps, macro = (
        serve(arrivals, plan, "full", mode=mode, router=router, limits=tight)
        for mode in ("steps", "macro")
    )
    assert columns(steps.ledger) == columns(macro.ledger)
    assert steps.to_json() == macro.to_json()
    check_every_fate(macro, arrivals, plan)
