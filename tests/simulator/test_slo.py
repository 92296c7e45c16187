from __future__ import annotations

import pytest

from simulator.slo import SloError, parse_slo


def test_clauses_are_read_in_their_units():
    slo = parse_slo(" ttft_p99 < 1.5s, tpot_p95<40ms ,e2e_mean<=20s,goodput>99%")
    assert [(c.metric, c.bound, c.upper) for c in slo.clauses] == [
        ("ttft_s.p99", 1.5, True),
        ("tpot_s.p95", 0.04, True),
        ("e2e_s.mean", 20.0, True),
        ("goodput_share", 0.99, False),
    ]
    assert slo.text == "ttft_p99<1.5s,tpot_p95<40ms,e2e_mean<=20s,goodput>99%"
    assert slo.threshold_s("ttft") == 1.5
    assert slo.threshold_s("itl") is None


def test_slack_is_a_share_of_the_bound_and_negative_outside():
    upper, lower = parse_slo("ttft_p99<2s,goodput>0.8").clauses
    assert upper.slack(1.5) == pytest.approx(0.25)
    assert upper.slack(3.0) == pytest.approx(-0.5)
    assert lower.slack(1.0) == pytest.approx(0.25)
    assert lower.slack(0.4) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("must hold a clause",)),
        ("ttft_p99", ("'ttft_p99'", "metric_stat<value unit")),
        ("ttft_p99>1s", ("'ttft_p99>1s'",)),
        ("latency_p99<1s", ("'latency_p99<1s'", "ttft")),
        ("ttft_p98<1s", ("'ttft_p98<1s'", "p95")),
        ("itl_p90<1s", ("'itl_p90<1s'", "p95")),
        ("ttft_p99<1", ("'ttft_p99<1'", "unit s or ms")),
        ("ttft_p99<1m", ("'ttft_p99<1m'", "unit s or ms")),
        ("ttft_p99<-1s", ("'ttft_p99<-1s'", "> 0")),
        ("ttft_p99<1e999s", ("finite",)),
        ("ttft_p99<1..5s", ("'1..5'", "not a number")),
        ("ttft_p99<1s,goodput>1.2", ("'goodput>1.2'", "(0, 1]")),
        ("goodput>0.9", ("goodput", "ttft or a tpot")),
        ("ttft_p99<1s,ttft_p99<2s", ("bound twice",)),
    ],
)
def test_a_clause_that_cannot_be_parsed_is_named(text, words):
    with pytest.raises(SloError) as failed:
        parse_slo(text)
    assert "\n" not in str(failed.value)
    for word in words:
        assert word in str(failed.value)
