from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from traces import header

OPTIONS = {  # command and options -> what the line must name
    ("simulate", "--preset", "fastest"): ("preset", "'fastest'"),
    ("simulate", "--rate", "-2"): ("rate", "-2.0"),
    ("simulate", "--rate", "nan"): ("rate", "nan"),
    ("simulate", "--rate", "0"): ("rate", "0.0"),
    ("simulate", "--requests", "0"): ("requests", "0"),
    ("simulate", "--seed", "-1"): ("seed", "-1"),
    ("simulate", "--replicas", "0"): ("replicas", "0"),
    ("simulate", "--router", "random"): ("router", "'random'"),
    ("simulate", "--pages", "2"): ("pages", "2"),
    ("simulate", "--max-seqs", "0"): ("max_seqs", "0"),
    ("simulate", "--token-budget", "1"): ("token_budget", "1"),
    ("simulate", "--target-nats", "-1"): ("target_nats", "-1.0"),
    ("simulate", "--slo-ttft", "0"): ("ttft_slo_s", "0"),
    ("simulate", "--slo-tpot", "-1"): ("tpot_slo_s", "-1"),
    ("simulate", "--ledger-out", "out.csv"): ("ledger-out", "out.csv"),
    ("simulate", "--ledger-out", "no/such/folder/l.jsonl"): ("ledger-out", "no/such/folder"),
    ("simulate", "--arrivals", "absent.csv"): ("absent.csv", "cannot be read"),
    ("ablate", "--seeds", "0"): ("seeds", "0"),
    ("ablate", "--seed", "-3"): ("seed", "-3"),
    ("ablate", "--jobs", "-1"): ("jobs", "-1"),
    ("report", "--seeds", "0"): ("seeds", "0"),
    ("demo", "--seed", "-1"): ("seed", "-1"),
    ("demo", "--max-tokens", "0"): ("max_tokens", "0"),
}


def refused(done, *words: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("simulating:")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_a_bad_option_is_one_line_naming_field_and_value(
    cli, inputs, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused(cli(*command, *inputs), *OPTIONS[command])
    assert list(tmp_path.iterdir()) == []


def damaged(trace: Path, folder: Path, how: str) -> Path:
    path = folder / f"{how}.parquet"
    data = trace.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "corrupt":
        middle = len(data) // 3
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "future":
        table = pq.read_table(trace)
        pairs = {k.decode(): v.decode() for k, v in pq.read_metadata(trace).metadata.items()}
        pairs["version"] = json.dumps(99)
        texts = {key: pairs[key] for key in pairs if key in header.METADATA_KEYS}
        pairs[header.DIGEST_KEY] = header.digest(texts)
        pairs.pop("ARROW:schema", None)
        pq.write_table(table.replace_schema_metadata(pairs), path)
    return path


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "corrupt", "future"])
@pytest.mark.parametrize("command", [("simulate", "--trace"), ("trace", "info")], ids=" ".join)
def test_a_bad_trace_is_one_line_naming_the_file(
    cli, trace_file, profile_file, tmp_path, command, how
):
    path = damaged(trace_file, tmp_path, how)
    extra = ("--profile", profile_file) if command[0] == "simulate" else ()
    words = ("version", "99") if how == "future" else ()
    refused(cli(*command, path, *extra), path.name, *words)


def test_a_bad_profile_is_one_line_naming_the_field(cli, trace_file, profile_file, tmp_path):
    document = json.loads(profile_file.read_text())
    document["step_law"]["base_s"] = -1.0
    path = tmp_path / "slow.json"
    path.write_text(json.dumps(document))
    refused(cli("simulate", "--trace", trace_file, "--profile", path), "base_s", "-1.0")


@pytest.mark.parametrize("how", ["folder", "empty"])
@pytest.mark.parametrize(
    "command",
    [
        ("trace", "info", "{path}"),
        ("trace", "import", "{path}", "--out", "{out}"),
        ("simulate", "--trace", "{path}"),
        ("simulate", "--arrivals", "{path}"),
        ("simulate", "--topology", "{path}"),
        ("page", "plan", "{path}"),
        ("page", "explain", "{path}", "3"),
    ],
    ids=" ".join,
)
def test_a_folder_or_an_empty_file_is_called_what_it_is(cli, tmp_path, command, how):
    path = tmp_path / "given.csv"
    if how == "folder":
        path.mkdir()
    else:
        path.touch()
    out = tmp_path / "out.jsonl"
    done = cli(*(word.format(path=path, out=out) for word in command))
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    assert "given.csv" in done.stderr
    for wrong in ("Parquet", "not exist", "known format"):
        assert wrong not in done.stderr
    words = ("folder", "directory") if how == "folder" else ("empty", "JSON", "Expecting value")
    assert any(word in done.stderr for word in words)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--ledger-out", "--perfetto", "--decisions", "--html"])
def test_an_output_that_cannot_be_written_is_named_by_its_option(
    cli, inputs, tmp_path, monkeypatch, option
):
    suffix = {"--html": ".html", "--perfetto": ".json"}.get(option, ".jsonl")
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    done = cli("simulate", *inputs, option, tmp_path / f"run{suffix}")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert ("a page" if option == "--html" else option.removeprefix("--")) in line
    assert f"run{suffix}" in line
    assert ".part" not in line
