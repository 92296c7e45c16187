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


def test_a_percentile_may_have_decimals_and_a_bound_microseconds():
    slo = parse_slo("itl_p99.9<250us,ttft_p99.90<2s,e2e_mean<9s")
    assert [c.metric for c in slo.clauses] == ["itl_s.p99.9", "ttft_s.p99.9", "e2e_s.mean"]
    assert slo.clauses[0].bound == pytest.approx(250e-6)
    assert slo.clauses[0].shown(0.0123456) == "12,346 us"
    assert slo.percentiles == (99.9,)


def test_a_bound_that_may_be_reached_holds_at_the_bound():
    below, up_to = parse_slo("ttft_p99<2s,tpot_p99<=2s").clauses
    assert up_to.holds(2.0)
    assert not below.holds(2.0)
    assert not up_to.holds(2.0 + 1e-9)
    always = parse_slo("ttft_p99<2s,goodput>=100%").clauses[1]
    assert always.holds(1.0)
    assert not always.holds(0.999)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("must hold a clause",)),
        ("ttft_p99", ("'ttft_p99'", "a bound is missing")),
        ("ttft_p99>1s", ("'ttft_p99>1s'", "< or <=", "'>'")),
        ("ttft_p99=1s", ("< or <=", "'='")),
        ("ttft<1s", ("'ttft<1s'", "a statistic is missing")),
        ("latency_p99<1s", ("'latency_p99<1s'", "ttft", "got 'latency'")),
        ("ttft_p100<1s", ("'ttft_p100<1s'", "got 'p100'")),
        ("ttft_p0<1s", ("got 'p0'",)),
        ("itl_max<1s", ("'itl_max<1s'", "got 'max'")),
        ("ttft_p99<1", ("'ttft_p99<1'", "unit must be s, ms or us", "'1' has none")),
        ("ttft_p99<1m", ("'ttft_p99<1m'", "got 'm'")),
        ("ttft_p99<s", ("'' is not a number",)),
        ("ttft_p99<-1s", ("'ttft_p99<-1s'", "> 0", "'-1'")),
        ("ttft_p99<nans", ("got 'nans'",)),
        ("ttft_p99<1s,goodput<0.5", ("> or >=", "'<'")),
        ("ttft_p99<1s,goodput>100%", ("goodput>=1",)),
        ("ttft_p99<1s,ttft_p99.0<2s", ("bound twice",)),
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
