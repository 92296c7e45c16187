"""The warm-up cut of a simulation."""

from __future__ import annotations

import pytest


def test_what_arrives_in_the_warm_up_counts_in_no_metric(cli, inputs):
    whole = cli.json("simulate", *inputs, "--preset", "full")
    cut = cli.json("simulate", *inputs, "--preset", "full", "--warmup", 2)
    early = cut["caveats"]["requests_in_warmup"]
    assert 0 < early < 9
    assert cut["metrics"]["completed"] == 9 - early
    assert sum(one["completed"] for one in cut["groups"]["class"].values()) == 9 - early
    assert (cut["config"]["warmup_s"], whole["config"]["warmup_s"]) == (2.0, 0.0)
    assert cut["metrics"]["tau_nats"] < whole["metrics"]["tau_nats"]
    text = cli("simulate", *inputs, "--warmup", 2).stdout
    assert f"{early} requests arrived in the warm-up" in text
    assert f"of {9 - early} requests" in text


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e6"])
def test_a_warm_up_that_leaves_nothing_is_one_line(cli, inputs, seconds):
    done = cli("simulate", *inputs, "--warmup", seconds)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("error: warmup must be")
