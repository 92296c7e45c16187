"""What figures of a run mean, recomputed from the rows of its ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from controllers.presets import get_preset
from simulator.commands import assemble, device
from simulator.run_groups import groups_of
from simulator.scenario import run

SERVERS, WATTS, IDLE_WATTS, USD = 2, 300.0, 50.0, 3.6
ROWS = 60
TENANTS = ("ann", "bob", "cyd")


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("semantics") / "a.jsonl"
    times_s = np.cumsum(rng.exponential(0.15, ROWS))
    rows = [
        {
            "arrival_s": time_s - times_s[0],
            "prompt_tokens": int(rng.integers(10, 60)),
            "output_tokens": int(rng.integers(2, 12)),
            "tenant": TENANTS[row % len(TENANTS)],
        }
        for row, time_s in enumerate(times_s)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", params=["baseline", "full"])
def served(
    request: pytest.FixtureRequest,
    cli,
    inputs,
    arrivals: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Mapping[str, float], dict[str, list[dict[str, float]]]]:
    """Return the metrics of a run on two servers that cost money and power, and its ledger."""
    folder = tmp_path_factory.mktemp("served")
    group = {"name": "g", "count": SERVERS, "usd_per_hour": USD}
    group |= {"watts": WATTS, "idle_watts": IDLE_WATTS}
    (folder / "top.json").write_text(json.dumps({"groups": [group]}))
    ledger = folder / "ledger.jsonl"
    asked = ("--preset", request.param, "--arrivals", arrivals, "--topology", folder / "top.json")
    found = cli.json("simulate", *inputs, *asked, "--ledger-out", ledger, "--seed", 4)
    tables: dict[str, list[dict[str, float]]] = {"request": [], "step": [], "token": []}
    for line in ledger.read_text().splitlines():
        row = json.loads(line)
        tables.setdefault(row["table"], []).append(row)
    return found["metrics"], tables


def column(rows: list[dict[str, float]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], np.float64)


def test_requests_in_the_system_are_their_rate_times_their_stay(served):
    metrics, tables = served
    came_s = column(tables["request"], "arrival_ns") / 1e9
    left_s = column(tables["request"], "finish_ns") / 1e9
    moments = np.concatenate([came_s, left_s])
    order = np.argsort(moments, kind="stable")
    inside = np.cumsum(np.repeat([1, -1], ROWS)[order])[:-1]
    span_s = left_s.max() - came_s.min()
    mean_inside = (inside * np.diff(moments[order])).sum() / span_s
    assert mean_inside == pytest.approx(ROWS / span_s * metrics["e2e_s"]["mean"])


def test_every_token_that_is_asked_for_is_computed_and_delivered_once(served, arrivals: Path):
    metrics, tables = served
    asked = [json.loads(line) for line in arrivals.read_text().splitlines()]
    for name, given in (("prompt_tokens", "prompt_tokens"), ("output_tokens", "tokens")):
        assert sorted(column(asked, name)) == sorted(column(tables["request"], given))
    assert metrics["preemptions"] == 0
    prompts, rows = (column(tables["step"], name).sum() for name in ("prompt_tokens", "n_decode"))
    assert prompts == column(asked, "prompt_tokens").sum()
    assert rows + ROWS == column(asked, "output_tokens").sum() == len(tables["token"])


def test_what_is_paid_for_is_servers_times_time(served):
    metrics, tables = served
    busy_s = column(tables["step"], "duration_ns").sum() / 1e9
    paid_s = SERVERS * column(tables["request"], "finish_ns").max() / 1e9
    assert metrics["gpu_seconds"] == pytest.approx(paid_s)
    assert metrics["cost_s"] == pytest.approx(busy_s)
    assert metrics["utilisation"] == pytest.approx(busy_s / paid_s)
    assert metrics["usd"] == pytest.approx(USD * paid_s / 3600)
    energy_j = WATTS * busy_s + IDLE_WATTS * (paid_s - busy_s)
    assert metrics["energy_j"] == pytest.approx(energy_j)
    assert metrics["joules_per_token"] == pytest.approx(energy_j / len(tables["token"]))


def test_parts_of_tenants_and_classes_add_up_to_the_whole(trace_file, profile_file, arrivals: Path):
    machine = device(profile_file, None, None, 1, roofline=False)
    scenario = assemble(trace_file, machine, arrivals, rate=None, requests=None, whole_trace=False)
    done = run(scenario, get_preset("full"), 0)
    groups = groups_of(scenario, done)
    assert sorted(groups["tenant"]) == sorted(TENANTS)
    for parts in groups.values():
        for name in (
            "completed", "nll_nats", "tau_nats", "throughput_tokens_per_s",
            "goodput_requests_per_s",
        ):  # fmt: skip
            assert sum(part[name] for part in parts.values()) == pytest.approx(done.metrics[name])


def test_a_run_tells_what_each_tenant_got(cli, inputs, arrivals: Path):
    asked = ("simulate", *inputs, "--arrivals", arrivals)
    found = cli.json(*asked)
    parts = found["groups"]["tenant"]
    assert {name: part["completed"] for name, part in parts.items()} == dict.fromkeys(TENANTS, 20)
    classes = found["groups"]["class"].values()
    assert sum(part["completed"] for part in classes) == ROWS
    lines = cli(*asked).stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:3] for line in lines if line.startswith(TENANTS)}
    assert rows == {name: ["20", str(part["tokens"])] for name, part in parts.items()}
    assert "groups" not in cli.json(*asked, "--seeds", 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_more_servers_never_make_first_tokens_later(cli, inputs, arrivals: Path, seed: int):
    asked = ("simulate", *inputs, "--arrivals", arrivals, "--rate", 12, "--seed", seed)
    common = (*asked, "--router", "least_loaded", "--preset", "baseline")
    tails_s = [
        cli.json(*common, "--replicas", count)["metrics"]["ttft_s"]["p99"] for count in (1, 2, 4, 8)
    ]
    assert tails_s[0] > 1.5 * tails_s[-1]  # the load is one that servers can share
    assert all(more <= 1.05 * fewer for fewer, more in pairwise(tails_s))


def test_a_tighter_level_never_takes_fewer_servers(cli, inputs, arrivals: Path):
    counts = []
    for bound in ("4s", "1s", "0.4s"):
        asked = ("--arrivals", arrivals, "--rate", 12, "--seeds", 2, "--jobs", 1)
        found = cli.json("plan", *inputs, *asked, "--slo", f"ttft_p90<{bound}")
        counts.append(found["rows"][0]["replicas"])
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
