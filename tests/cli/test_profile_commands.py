"""``entropic profile show`` and ``import``: what they print, and one line for bad input."""

from __future__ import annotations

import json

import pytest

from traces.profile import read_profile
from traces.profiles import shipped

LLAMA = "Llama-3.1-8B"


def test_show_without_a_name_lists_every_shipped_profile(cli):
    done = cli("profile", "show")
    assert done.exit_code == 0
    for path, _ in shipped():
        assert path.stem in done.stdout
    assert len(cli.json("profile", "show")["rows"]) == len(list(shipped()))


def test_show_prints_law_errors_limits_source_and_what_pruning_saves(cli):
    done = cli("profile", "show", LLAMA, "H100")
    assert done.exit_code == 0
    for words in (
        "KV token read",
        "held_out_mean_abs_pct",
        "limits (estimated, not resolved from an engine)",
        "aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0)",
        "decode rows: 128",
        "1,000 KV tokens fewer per row save",
    ):
        assert words in done.stdout


def test_show_as_json_has_step_times_in_seconds(cli):
    found = cli.json("profile", "show", LLAMA, "H100", "--tp", 2)
    assert found["profile"]["gpus"] == 2
    steps = found["metrics"]["steps"]
    assert [row["n_decode"] for row in steps[::3]] == [1, 8, 32, 128]
    assert 1e-3 < steps[0]["step_s"] < steps[-1]["step_s"] < 0.1
    assert found["metrics"]["against"] is None


def test_show_reads_a_file_of_version_1_without_limits_it_does_not_know(
    cli, tmp_path, profile_file
):
    document = json.loads(profile_file.read_text())
    document["limits"] = {"kv_pages": 7}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(document))
    done = cli("profile", "show", path)
    assert done.exit_code == 0
    assert "limits (resolved): kv_pages 7" in done.stdout
    assert "none stated" in done.stdout


def test_a_roofline_says_so_and_how_far_it_is_from_the_fitted_law(cli):
    done = cli("profile", "show", LLAMA, "A100", "--roofline")
    assert done.exit_code == 0
    assert "note: a roofline from datasheet numbers; nothing here was measured" in done.stdout
    assert "against the shipped profile's law: decode -" in done.stdout
    alone = cli("profile", "show", "Qwen3-8B", "L4", "--roofline")
    assert alone.exit_code == 0
    assert "against" not in alone.stdout


def test_import_writes_a_profile_that_show_reads(cli, tmp_path):
    row = {
        "prefill": [10.0, 0.1, 0.0],
        "decoding_smallbs": [10.0, 1e-4, 1e-2],
        "decoding_largebs": [10.0, 1e-4, 1e-2],
        "decoding_large_small_bs_threshold": 95,
    }
    source, out = tmp_path / "profiler.json", tmp_path / "mine.json"
    source.write_text(json.dumps({"org/m": {"1": row}}))
    asked = ("profile", "import", "--from", "distserve", "--model", "m", "--tables", source)
    found = cli.json(*asked, "--pages", 4000, "--usd-per-hour", 1.5, "--out", out)
    assert found["profile"]["usd_per_hour"] == 1.5
    assert read_profile(out).limits["n_pages"] == 4000
    assert "price: 1.50 USD per GPU-hour" in cli("profile", "show", out).stdout


BAD = {
    ("show", "absent.json"): ("absent.json", "cannot be read"),
    ("show", LLAMA, "A10"): ("A10", "no such profile"),
    ("show", LLAMA, "H100", "--tp", "3"): ("tp 3", "tp 1, 2, 4, 8"),
    ("show", "--roofline"): ("show needs a model",),
    ("show", LLAMA, "--roofline"): ("--roofline needs a model and a GPU", LLAMA),
    ("show", LLAMA, "TPU", "--roofline"): ("gpu must name one of", "'TPU'"),
    ("show", "mistral", "H100", "--roofline"): ("model must be one of", "'mistral'"),
    ("import", "--from", "x", "--model", "m", "--out", "o"): ("--from", "'x'"),
    ("import", "--from", "aiconfigurator", "--model", LLAMA, "--out", "o"): ("--gpu",),
    ("import", "--from", "servingsim", "--model", LLAMA, "--out", "o"): ("--tables",),
    ("import", "--from", "servingsim", "--model", LLAMA, "--out", "o", "--tables", "no"): (
        "meta.yaml",
    ),
    ("import", "--from", "distserve", "--model", "m", "--out", "o"): ("--pages",),
}


@pytest.mark.parametrize("command", BAD, ids=" ".join)
def test_bad_input_is_one_line_and_exit_code_2(cli, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("profile", *command)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in BAD[command]:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_show_import_and_run_explain_their_options(cli):
    for command, option in (("show", "--roofline"), ("import", "--from"), ("run", "--max-context")):
        done = cli("profile", command, "--help")
        assert done.exit_code == 0
        assert option in done.output
