from __future__ import annotations

import functools
import json

import pytest

import simulator.plan_pool as plan_pool

SLO = "ttft_p99<3s,tpot_p95<150ms"


@pytest.fixture
def asked(inputs, arrivals) -> list[object]:
    return ["plan", *inputs, "--arrivals", arrivals, "--seeds", 2, "--jobs", 1, "--slo", SLO]


def test_a_plan_answers_for_every_preset_with_quality_beside_cost(cli, asked, tmp_path):
    out, page = tmp_path / "plan.json", tmp_path / "plan.html"
    more = ("--presets", "baseline,full", "--rate", 3, "--usd-per-hour", 2)
    done = cli(*asked, *more, "--out", out, "--html", page)
    assert done.exit_code == 0, done.stderr
    for words in (
        "fewest replicas", "USD/M tokens", "knee", "NLL, nat/token", "pruning's NLL (quoted)",
        "Against baseline", "on the front", "is not the planned model", "resampled",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert "</html>" in page.read_text()
    found = json.loads(out.read_text())
    rows = {row["preset"]: row for row in found["rows"]}
    assert list(rows) == ["baseline", "full"]
    for row in rows.values():
        assert row["met"]
        assert row["fewest"]["status"] == "meets"
        if row["one_less"] is not None:
            assert row["one_less"]["status"] != "meets"
        assert row["knee"]["rate_per_s"] < row["knee_fails_at_per_s"]
        figures = row["fewest"]["figures"]
        dollars, hours = (
            figures[f"{unit}_per_million_tokens"]["recorded"] for unit in ("usd", "gpu_hours")
        )
        assert dollars == pytest.approx(2.0 * hours)
    assert rows["baseline"]["against_reference"] == {}
    kept = rows["full"]["against_reference"]["kv_pages_kept_share"]["difference"]
    assert kept["centre"] <= 0.0


def test_parallel_serial_and_resumed_plans_are_the_same_bytes(cli, asked, tmp_path, monkeypatch):
    out = [tmp_path / f"{name}.json" for name in ("serial", "parallel", "killed")]
    assert cli(*asked, "--out", out[0]).exit_code == 0
    assert cli(*asked, "--jobs", 2, "--out", out[1]).exit_code == 0
    assert out[0].read_bytes() == out[1].read_bytes()

    simulated = []

    def counted(setup, batch, dies_at=None):
        for found in run_batch(setup, batch):
            if len(simulated) == dies_at:
                raise KeyboardInterrupt
            simulated.append(found)
            yield found

    run_batch = plan_pool.simulate_alike
    monkeypatch.setattr(plan_pool, "simulate_alike", functools.partial(counted, dies_at=7))
    assert cli(*asked, "--out", out[2]).exit_code != 0
    assert not out[2].exists()
    kept = tmp_path / "killed.json.runs.jsonl"
    assert len(kept.read_text().splitlines()) == 7
    with kept.open("a") as file:
        file.write('{"key": "torn')  # as a crash within a write leaves it

    before = len((tmp_path / "serial.json.runs.jsonl").read_text().splitlines())
    simulated.clear()
    monkeypatch.setattr(plan_pool, "simulate_alike", counted)
    assert cli(*asked, "--out", out[2]).exit_code == 0
    assert out[2].read_bytes() == out[0].read_bytes()
    assert len(simulated) == before - 7

    simulated.clear()
    assert cli(*asked, "--out", out[2]).exit_code == 0
    assert simulated == []
    assert out[2].read_bytes() == out[0].read_bytes()  # not even the order of its figures moves
    assert cli(*asked, "--out", out[2], "--fresh").exit_code == 0
    assert len(simulated) == before


def test_another_seed_is_another_plan(cli, asked):
    one, other = (cli.json(*asked, "--seed", seed, "--rate", 1) for seed in (1, 2))
    assert one["rows"] != other["rows"]


def test_a_level_that_cannot_be_met_exits_2_with_clause_and_distance(cli, asked):
    done = cli(*asked[:-1], "ttft_p99<3s,e2e_mean<1ms", "--replicas-max", 2)
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    for words in ("cannot be met with 2 replica(s)", "e2e_mean<1ms", "% outside"):
        assert words in last


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--slo", "ttft_p101<1s"), ("ttft_p101<1s", "statistic", "'p101'")),
        (("--presets", "fastest"), ("'fastest'",)),
        (("--presets", "baseline,baseline"), ("presets", "distinct")),
        (("--seeds", "1"), ("seeds", "1")),
        (("--seed", "-1"), ("seed", "-1")),
        (("--requests", "1"), ("requests", "1")),
        (("--rate", "0"), ("rate", "0")),
        (("--replicas-max", "0"), ("replicas_max", "0")),
        (("--block-s", "0"), ("block_s", "0")),
        (("--usd-per-hour", "0"), ("usd_per_hour",)),
        (("--jobs", "-1"), ("jobs", "-1")),
        (("--mode", "fast"), ("mode", "'fast'")),
        (("--model", "Llama-3.1-8B"), ("--model", "--gpu")),
        (("--out", "no/such/folder/p.json"), ("folder", "no/such")),
        (("--arrivals", "absent.csv"), ("absent.csv",)),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli, asked, changes, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*asked, *changes)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plan_document_is_strict_json_with_every_caveat(cli, asked, tmp_path):
    out = tmp_path / "plan.json"
    assert cli(*asked, "--out", out).exit_code == 0

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(out.read_text(), parse_constant=refuse)
    assert {"command", "version", "seed", "config", "rows", "pareto", "notes"} <= set(found)
    text = "\n".join(found["notes"])
    for words in ("resamples in blocks", "is not the planned model", "bootstrapped from it"):
        assert words in text


def test_outputs_that_cannot_be_written_are_refused_before_any_run(cli, asked, tmp_path):
    (tmp_path / "folder.html").mkdir()
    for option, target, words in (
        ("--out", tmp_path, "must name a file, not a folder"),
        ("--html", tmp_path / "folder.html", "must name a file, not a folder"),
        ("--out", tmp_path / "none" / "plan.json", "must lie in an existing folder"),
    ):
        done = cli(*asked, option, target)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        for said in (option, words, str(target)):
            assert said in line


def test_arrivals_without_span_or_longer_than_the_pool_are_refused(cli, inputs, tmp_path):
    head = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
    at_once, long = tmp_path / "once.csv", tmp_path / "long.csv"
    at_once.write_text(head + "0.0,10,5\n" * 4)
    long.write_text(head + "0.0,10,5\n1.0,9000000,5\n2.0,10,5\n")
    for path, words in ((at_once, "the same instant"), (long, "prompt 9000000")):
        done = cli("plan", *inputs, "--arrivals", path, "--jobs", 1, "--slo", SLO)
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        for said in (words, path.name):
            assert said in line


def test_a_refused_price_is_named(cli, asked):
    done = cli(*asked, "--usd-per-hour", -1)
    assert done.exit_code == 2
    assert "usd_per_hour=-1" in done.stderr
