"""``trace import``, ``mix``, ``synth`` and ``info`` on arrivals and on entropy intervals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from traces.arrivals import read_arrivals

MOONCAKE = """{"timestamp": 0, "input_length": 1030, "output_length": 3, "hash_ids": [0, 1, 2]}
{"timestamp": 0, "input_length": 520, "output_length": 4, "hash_ids": [0, 9]}
{"timestamp": 3000, "input_length": 30, "output_length": 5, "hash_ids": [5]}
"""


@pytest.fixture
def mooncake(tmp_path: Path) -> Path:
    path = tmp_path / "mooncake.jsonl.gz"
    path.write_bytes(gzip.compress(MOONCAKE.encode()))
    return path


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("import", ("--out", "--sort", "--block-tokens", "--vocabulary", "--licence", "--json")),
        ("mix", ("--out", "--seed", "--json")),
        ("synth", ("--prefixes", "--tenant", "--lengths", "--json")),
        ("info", ("--sort", "--plot", "--json")),
    ],
)
def test_every_command_explains_its_options(cli, command: str, options: tuple[str, ...]):
    done = cli("trace", command, "--help")
    assert done.exit_code == 0
    for option in options:
        assert option in done.output


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".csv.gz", ".jsonl.gz"])
def test_an_imported_file_says_the_same_as_its_source(cli, mooncake, tmp_path, suffix: str):
    out = tmp_path / f"ours{suffix}"
    made = cli.json("trace", "import", mooncake, "--out", out, "--licence", "Apache-2.0")
    again = cli.json("trace", "info", out)["metrics"]
    assert made["metrics"] == again
    assert again["licence"] == "Apache-2.0"
    assert again["source"] == "mooncake:mooncake.jsonl.gz"
    source = cli.json("trace", "info", mooncake)["metrics"]
    assert source | {"licence": "Apache-2.0"} == again
    assert again["prefix_block_reuse"] == pytest.approx(1 / 6)
    assert again["prompt_tokens"]["max"] == 1030


def test_info_says_in_words_what_it_says_in_json(cli, mooncake):
    done = cli("trace", "info", mooncake)
    assert done.exit_code == 0
    for text in ("prefix_block_reuse", "gap_cv", "prompt_tokens", "licence: Apache-2.0 if from"):
        assert text in done.stdout


def test_coarse_clocks_can_be_spread(cli, tmp_path):
    rows = [
        {"timestamp": 3000 * (i // 5), "input_length": 9, "output_length": 1} for i in range(50)
    ]
    path, out = tmp_path / "m.jsonl", tmp_path / "x.csv"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    coarse = cli.json("trace", "info", path)["metrics"]
    fine = cli.json("trace", "import", path, "--out", out, "--spread-seed", "1")["metrics"]
    assert "50 arrivals share 10 times" in coarse["notes"][0]
    assert fine["distinct_times"] == 50
    assert fine["notes"] == []
    assert fine["gap_cv"] < coarse["gap_cv"]
    assert abs(fine["span_s"] - coarse["span_s"]) < 3.0
    assert (read_arrivals(out).times_s // 3.0 - read_arrivals(path).times_s // 3.0).min() >= -1


def test_tenants_are_mixed_at_their_own_rates(cli, mooncake, tmp_path):
    synth, out = tmp_path / "s.csv", tmp_path / "mix.jsonl"
    options = ("--rate", "2", "--n", "300", "--prefixes", "4", "--prefix-tokens", "512")
    assert cli("trace", "synth", *options, "--out", synth, "--tenant", "x").exit_code == 0
    found = cli.json("trace", "mix", f"ann={mooncake}@0.5", f"bob={synth}@4", "--out", out)
    assert found["metrics"]["tenants"] == {"ann": 3, "bob": 300}
    assert found["metrics"]["prefix_blocks_distinct"] == 5 + 4
    bob = read_arrivals(out)
    assert bob.tenants.counts() == {"ann": 3, "bob": 300}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("import", "{file}", "--out", "{dir}/x.txt"), "out must end in one of"),
        (("import", "{file}", "--out", "{dir}/none/x.csv"), "out must lie in an existing folder"),
        (("import", "{dir}/absent", "--out", "{dir}/x.csv"), "absent: cannot be read"),
        (("import", "{file}", "--out", "{dir}/x.csv", "--block-tokens", "9"), "block_tokens"),
        (("import", "{file}", "--out", "{dir}/x.csv", "--rate", "0"), "rate_per_s"),
        (("mix", "a={file}", "a={file}", "--out", "{dir}/x.csv"), "names of their own; got 'a'"),
        (("mix", "a", "--out", "{dir}/x.csv"), "must be NAME=FILE"),
        (("mix", "a={file}@fast", "--out", "{dir}/x.csv"), "must be a number; got 'a="),
        (("info", "{file}", "--plot", "{dir}/x.svg"), "plot draws entropy intervals"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(cli, mooncake, tmp_path, args, named: str):
    words = [word.format(file=mooncake, dir=tmp_path) for word in args]
    done = cli("trace", *words)
    assert done.exit_code == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [mooncake]


def responses(tmp_path: Path) -> Path:
    item = {
        "token": "a",
        "logprob": -0.1,
        "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -4.0}],
    }
    choice = {"finish_reason": "stop", "logprobs": {"content": [item, item]}}
    path = tmp_path / "responses.json"
    path.write_text(json.dumps({"model": "m", "choices": [choice]}))
    return path


def test_responses_become_intervals_that_can_be_described_and_drawn(cli, tmp_path):
    path, out, plot = responses(tmp_path), tmp_path / "h.jsonl", tmp_path / "h.svg"
    made = cli.json("trace", "import", path, "--out", out, "--vocabulary", "1000")
    again = cli.json("trace", "info", out, "--plot", plot)
    assert made["metrics"] == again["metrics"]
    assert again["metrics"]["tokens"] == 2
    assert 0 < again["metrics"]["h_low_mean"] < again["metrics"]["h_high_mean"]
    assert plot.read_text().startswith("<?xml")
    assert "cannot be simulated" in cli("trace", "info", out).stdout


def test_intervals_need_a_vocabulary_and_are_not_simulated(cli, profile_file, tmp_path):
    path, out = responses(tmp_path), tmp_path / "h.jsonl"
    done = cli("trace", "import", path, "--out", out)
    assert done.exit_code == 2
    assert "vocabulary must be given" in done.stderr
    assert cli("trace", "import", path, "--out", out, "--vocabulary", "1000").exit_code == 0
    done = cli("simulate", "--trace", out, "--profile", profile_file)
    assert done.exit_code == 2
    assert "h.jsonl" in done.stderr


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_ledger_of_a_run_is_read_as_the_arrivals_it_served(cli, inputs, tmp_path, suffix: str):
    ledger, out = tmp_path / f"ledger{suffix}", tmp_path / "a.jsonl"
    done = cli("simulate", *inputs, "--requests", 9, "--ledger-out", ledger)
    assert done.exit_code == 0, done.stderr
    found = cli.json("trace", "import", ledger, "--out", out)["metrics"]
    assert found["requests"] + found["dropped"] == 9
    assert found["source"] == f"entropic-ledger:{ledger.name}"
    again = cli.json("trace", "info", ledger)["metrics"]
    assert again == found
    served = cli("simulate", *inputs, "--arrivals", out)
    assert served.exit_code == 0, served.stderr
    assert "output lengths are the arrival trace's" in served.stdout + served.stderr
