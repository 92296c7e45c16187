from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from simulator import ledger_file

VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
ROOT = Path(__file__).resolve().parents[2]
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
SCALARS = (
    "throughput_tokens_per_s",
    "throughput_requests_per_s",
    "goodput_requests_per_s",
    "kv_bytes_read",
    "kv_pages_kept_share",
    "preemptions",
    "tau_nats",
    "tau_cal_nats",
    "entropy_net_nats",
    "nll_nats",
    "cost_s",
    "clip_share",
    "max_service_gap_steps",
    "jain",
)


def test_json_holds_the_contract_names(cli, inputs):
    found = cli.json("simulate", *inputs, "--preset", "full", "--seed", 3)
    assert {"command", "version", "seed", "config", "metrics"} <= set(found)
    assert (found["command"], found["seed"]) == ("simulate", 3)
    for name in LATENCIES:
        assert set(found["metrics"][name]) == {"mean", "p50", "p95", "p99"}
    for name in SCALARS:
        assert isinstance(found["metrics"][name], int | float), name
    assert found["metrics"]["completed"] == found["config"]["requests"] == 9


def test_equal_seeds_give_equal_bytes_in_another_process(cli, inputs):
    args = ["simulate", *map(str, inputs), "--seed", "1", "--json"]
    here = cli(*args)
    code = "import sys, entropic; sys.argv[0] = 'entropic'; entropic.main()"
    there = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout == here.stdout
    assert cli(*args[:-2], "2", "--json").stdout != here.stdout


def test_simulating_loads_no_heavy_library(inputs):
    code = (
        "import sys, entropic\n"
        "try: entropic.main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        "heavy = ('torch', 'transformers', 'matplotlib', 'scipy', 'joblib', 'hypothesis')\n"
        "sys.stderr.write(repr([name for name in heavy if name in sys.modules]))"
    )
    args = ["simulate", *map(str, inputs), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]"


def test_text_shows_metrics_seed_and_caveats(cli, inputs):
    done = cli("simulate", *inputs, "--seed", 4)
    assert done.exit_code == 0
    for words in ("seed 4", "time to first token", "Jain", "output lengths are the recording's"):
        assert words in done.stdout
    assert "is not the planned model" in done.stdout
    assert "simulating" in done.stderr
    assert "simulating" not in done.stdout


@pytest.mark.parametrize("preset", ["baseline", "seed", "best"])
def test_every_kind_of_preset_runs_to_the_end(cli, inputs, preset):
    metrics = cli.json("simulate", *inputs, "--preset", preset)["metrics"]
    assert metrics["completed"] == 9
    assert metrics["unfinished"] == 0


def test_a_jsonl_and_a_parquet_ledger_hold_the_same_rows(cli, inputs, tmp_path):
    lines, table = tmp_path / "run.jsonl", tmp_path / "run.parquet"
    for path in (lines, table):
        assert cli("simulate", *inputs, "--ledger-out", path).exit_code == 0
    head, *rows = [json.loads(line) for line in lines.read_text().splitlines()]
    stored = pq.read_table(table).to_pylist()
    made = json.loads(pq.read_schema(table).metadata[b"provenance"])
    assert head == {"table": "header", "provenance": made}
    assert len(rows) == len(stored)
    for row, full in zip(rows, stored, strict=True):
        assert {name: value for name, value in full.items() if name in row} == row
    requests = [row for row in rows if row["table"] == "request"]
    tokens = [row for row in rows if row["table"] == "token"]
    assert len(requests) == 9
    assert len(tokens) == sum(row["tokens"] for row in requests)


def test_every_output_says_alike_what_made_it(cli, inputs, trace_file, tmp_path):
    ledger, picture, log = (tmp_path / name for name in ("l.jsonl", "p.json", "d.jsonl"))
    files = ("--ledger-out", ledger, "--perfetto", picture, "--decisions", log)
    found = cli.json("simulate", *inputs, "--seed", 3, *files)["provenance"]
    headers = [
        json.loads(ledger.read_text().splitlines()[0])["provenance"],
        json.loads(picture.read_text())["otherData"]["provenance"],
        json.loads(log.read_text().splitlines()[0])["provenance"],
    ]
    kinds = ("ledger", "perfetto", "decisions")
    for made, kind in zip(headers, kinds, strict=True):
        assert made == {**found, "schema": f"entropic-{kind}"}
    assert found["trace_sha256"] == hashlib.sha256(trace_file.read_bytes()).hexdigest()
    assert found["seed"] == 3
    line = f"--trace {trace_file.name} --profile profile.json --seed 3"
    assert found["arguments"] == f"entropic simulate {line}"


def test_a_ledger_has_the_same_bytes_with_and_without_a_decision_log(cli, inputs, tmp_path):
    plain, told = tmp_path / "plain.jsonl", tmp_path / "told.jsonl"
    args = ("simulate", *inputs, "--replicas", 2, "--rate", 5)
    assert cli(*args, "--ledger-out", plain).exit_code == 0
    done = cli(*args, "--ledger-out", told, "--decisions", tmp_path / "log.jsonl")
    assert done.exit_code == 0, done.stderr
    assert plain.read_bytes() == told.read_bytes()


def test_a_huge_ledger_is_announced_before_the_run(cli, inputs, tmp_path, monkeypatch):
    args = ("simulate", *inputs, "--ledger-out", tmp_path / "run.jsonl")
    assert "GB" not in cli(*args).stderr
    monkeypatch.setattr(ledger_file, "HUGE_BYTES", 1)
    first = cli(*args).stderr.splitlines()[0]
    assert "run.jsonl will hold about" in first
    assert "GB" in first


def test_recorded_arrivals_keep_their_times_until_a_rate_is_given(cli, inputs, tmp_path):
    path = tmp_path / "arrivals.csv"
    rows = "\n".join(f"{2 * i},10,5" for i in range(5))
    path.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    ours = (*inputs, "--arrivals", path, "--lengths", "trace")
    as_is = cli.json("simulate", *ours)
    assert as_is["config"]["rate_per_s"] == pytest.approx(0.5)
    assert as_is["config"]["requests"] == 5
    faster = cli.json("simulate", *ours, "--rate", 2)
    assert faster["config"]["rate_per_s"] == pytest.approx(2.0)
    assert faster["metrics"]["ttft_s"]["mean"] > as_is["metrics"]["ttft_s"]["mean"]


def test_a_second_replica_shortens_waits_at_the_same_rate(cli, inputs):
    one = cli.json("simulate", *inputs, "--rate", 5)["metrics"]["ttft_s"]["mean"]
    two = cli.json("simulate", *inputs, "--rate", 5, "--replicas", 2)["metrics"]["ttft_s"]["mean"]
    assert two < one


def test_recorded_lengths_are_used_where_the_arrivals_have_them(cli, inputs, tmp_path):
    path = tmp_path / "arrivals.csv"
    rows = "\n".join(f"{i},{20 + i},{3 + i}" for i in range(6))
    path.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    found = cli.json("simulate", *inputs, "--arrivals", path)
    assert found["config"]["lengths"] == "arrivals"
    assert found["caveats"]["join_tokens"] == sum(3 + i for i in range(6))
    dealt = cli.json("simulate", *inputs, "--arrivals", path, "--lengths", "trace")
    assert dealt["config"]["lengths"] == "trace"
    assert "join_tokens" not in dealt["caveats"]


def test_every_mode_gives_the_same_metrics(cli, inputs):
    found = [
        cli.json("simulate", *inputs, "--rate", 4, "--mode", mode)["metrics"]
        for mode in ("online", "steps", "macro")
    ]
    assert found[0] == found[1] == found[2]


def test_several_seeds_give_means_with_intervals(cli, inputs):
    one = cli.json("simulate", *inputs, "--seeds", 3)
    assert one["config"]["seeds"] == 3
    assert set(one["metrics"]["ttft_s"]["ci95"]) == {"mean", "p50", "p95", "p99"}
    each = [cli.json("simulate", *inputs, "--seed", s)["metrics"] for s in range(3)]
    mean = sum(metrics["cost_s"] for metrics in each) / 3
    assert one["metrics"]["cost_s"]["mean"] == pytest.approx(mean)
    assert "over seeds 0 to 2" in cli("simulate", *inputs, "--seeds", 3).stdout


def test_a_run_is_written_for_the_viewer_the_log_and_the_page(cli, inputs, tmp_path):
    trace, log, page = (tmp_path / name for name in ("run.json", "why.jsonl", "run.html"))
    done = cli("simulate", *inputs, "--perfetto", trace, "--decisions", log, "--html", page)
    assert done.exit_code == 0, done.output
    assert json.loads(trace.read_text())["traceEvents"]
    assert json.loads(log.read_text().splitlines()[0])["kind"] == "header"
    assert "</html>" in page.read_text()


@pytest.mark.parametrize("option", ["--perfetto", "--decisions", "--html"])
def test_what_cannot_be_written_is_refused_before_the_run(cli, inputs, tmp_path, option):
    done = cli("simulate", *inputs, option, tmp_path / "no" / "x.json")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_topology_replaces_replicas(cli, inputs, tmp_path):
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"groups": [{"name": "a", "count": 2}]}))
    one = cli.json("simulate", *inputs, "--topology", path)
    two = cli.json("simulate", *inputs, "--replicas", 2, "--rate", one["config"]["rate_per_s"])
    assert one["metrics"] == two["metrics"]
    path.write_text(json.dumps({"groups": [{"name": "a", "count": 0}]}))
    done = cli("simulate", *inputs, "--topology", path)
    assert done.exit_code == 2
    assert "count" in done.stderr


def test_arrivals_of_one_instant_are_refused_in_words(cli, inputs, tmp_path):
    path = tmp_path / "once.csv"
    path.write_text(VIDUR + "0,10,5\n" * 3)
    done = cli("simulate", *inputs, "--arrivals", path)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "once.csv: its 3 arrival(s) all lie at the same instant" in line
    assert "nan" not in line.replace(str(tmp_path), "")


def test_a_prompt_beyond_the_context_is_refused_unless_cutting_is_asked_for(cli, inputs, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(VIDUR + "0,10,5\n1,100,8\n2,900,4\n")
    asked = ("simulate", *inputs, "--arrivals", path)
    done = cli(*asked)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    for words in ("1 of 3 requests", "max_context", "prompt 900 + output 4", "--cut-prompts"):
        assert words in line
    found = cli.json(*asked, "--cut-prompts")
    assert found["caveats"]["join_requests_cut"] == 1
    assert found["metrics"]["completed"] == 3
    assert cli.json(*asked, "--requests", 2)["metrics"]["completed"] == 2  # the long one is third


def test_rates_that_the_clock_cannot_hold_are_refused_before_a_run(cli, inputs, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(VIDUR + "0,10,5\n1,12,5\n3,9,4\n")
    replay = ("simulate", *inputs, "--arrivals", path)
    grid = ("sweep", *inputs, "--arrivals", path, "--jobs", 1)
    for rate in ("1e-300", "1e300"):
        for asked in (("simulate", *inputs, "--rate"), (*replay, "--rate"), (*grid, "--rates")):
            done = cli(*asked, rate)
            assert done.exit_code == 2, done.output
            (line,) = done.stderr.splitlines()
            assert "rate_per_s must lie in" in line


def test_users_in_a_closed_loop_ask_on_once_they_have_thought(cli, inputs):
    asked = ("simulate", *inputs, "--users", 3, "--requests", 6, "--think", 1)
    found = cli.json(*asked)
    assert found["metrics"]["completed"] == 6
    assert found["config"]["sessions"]["users"] == 3
    assert "rate_per_s" not in found["config"]
    idle = cli.json(*asked[:-1], 1000)["metrics"]
    assert idle["utilisation"] < 0.1 * found["metrics"]["utilisation"]  # they think, it waits
    text = cli(*asked).stdout
    assert "6 requests of 3 users in a closed loop" in text
    assert "the load falls" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--users", 0), "users must be >= 1"),
        (("--users", 2, "--turns", 0.5), "turns must be >= 1"),
        (("--users", 2, "--think", -1), "think must be >= 0"),
        (("--users", 2, "--requests", 3), "a multiple of 2"),
        (("--users", 2, "--rate", 3), "leave --rate out"),
        (("--turns", 2), "give --users"),
    ],
)
def test_a_closed_loop_that_makes_no_sense_is_refused(cli, inputs, changes, words):
    done = cli("simulate", *inputs, *changes)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert words in line
