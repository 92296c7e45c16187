"""Files as they come: packed, edited, joined, cut; read as they are or refused in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from traces.arrivals import Arrivals, ArrivalsError, read_arrivals
from traces.arrivals_info import describe_arrivals
from traces.import_commands import app
from traces.import_files import read_lengths

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROWS = ("2023-11-16 18:01:51.9000001,10,3", "2023-11-16 18:01:53.1500001,20,4")
AZURE = "\n".join((HEAD, *ROWS)) + "\n"
DOS = AZURE.replace("\n", "\r\n")
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
MOONCAKE = {"timestamp": 0, "input_length": 10, "output_length": 3}


def save(tmp_path: Path, content: str | bytes, name: str = "arrivals") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(path: Path) -> str:
    with pytest.raises(ArrivalsError) as caught:
        read_arrivals(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("packed.csv", gzip.compress(AZURE.encode(), mtime=0)),
        ("plain.csv.gz", AZURE.encode()),
        ("mark.csv", AZURE.encode("utf-8-sig")),
        ("dos.csv", DOS.encode()),
        ("dos and mark.csv.gz", gzip.compress(DOS.encode("utf-8-sig"), mtime=0)),
        ("blank.csv", f"\n\n{HEAD}\n\n{ROWS[0]}\n\n{ROWS[1]}".encode()),
        ("spaced.csv", AZURE.replace(",", ", ").encode()),
        ("trailing.csv", AZURE.replace("\n", ",\n").encode()),
    ],
)
def test_one_table_reads_alike_however_it_was_saved(tmp_path, name: str, content: bytes):
    found = read_arrivals(save(tmp_path, content, name))
    assert found.times_s.tolist() == [0.0, 1.25]
    assert found.prompt_tokens.tolist() == [10, 20]
    assert found.output_tokens.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEAD}\n{ROWS[0]}\n2023-11-16 18:01:54,1,020,4\n", ":3: row: must have a cell for"),
        (f"{HEAD}\n2023-11-16 18:01:54,3\0,4\n", ":2: ContextTokens: must be a whole number"),
        (f"{BURST}5\0,m,4,3,7,API log\n", ":2: Timestamp: must be a number"),
        (json.dumps([MOONCAKE, MOONCAKE]), ":1: must be one JSON object a line, not a list"),
        (json.dumps([MOONCAKE], indent=1), ":1: must be one JSON object a line, not a list"),
        ('{"a":' + "[" * 100_000, ":1: must be JSON: maximum recursion"),
        (
            lines(MOONCAKE, MOONCAKE | {"timestamp": 1e30}),
            ":2: timestamp: lies 1e+27 s after the earliest; at most 3.16e+09: another unit?",
        ),
        (
            lines(MOONCAKE, {"delay": 5, "input_length": 1, "output_length": 1}),
            ":2: delay: rows of a closed-loop session have no time",
        ),
        ("num_prefill_tokens,num_decode_tokens\n1,2\n", ":1: arrived_at: is missing: lengths"),
        ("  \n\n", ": is empty"),
    ],
)
def test_what_would_be_misread_is_refused_in_one_line(tmp_path, content: str, message: str):
    assert refusal(save(tmp_path, content)).startswith(message)


def test_an_error_line_quotes_no_more_of_a_value_than_names_it(tmp_path):
    path = save(tmp_path, lines(MOONCAKE, MOONCAKE | {"timestamp": 10**400}))
    assert refusal(path).endswith("0... (401 characters)")


def test_failed_rows_are_counted_wherever_they_stand(tmp_path):
    rows = ("5,m,0,3,3,a", "6,m,4,3,7,a", "7,m,4,0,4,a", "8,m,4,3,7,a", "9,m,4,0,4,a")
    path = save(tmp_path, BURST + "\n".join(rows) + "\n")
    assert (len(read_arrivals(path)), read_arrivals(path).dropped) == (2, 3)
    assert read_arrivals(path, limit=2).dropped == 2  # what follows was not asked for
    ledger = [
        {"table": "request", "arrival_ns": ns, "prompt_tokens": 9, "tokens": n, "finish_reason": r}
        for ns, n, r in ((0, 3, "stop"), (1, 2, "failed"), (2, 0, "failed"), (3, 0, "failed"))
    ]
    found = read_arrivals(save(tmp_path, lines(*ledger)))
    assert found.dropped == 2
    assert found.notes[-1].startswith("1 requests did not complete")


def test_nanoseconds_since_the_epoch_keep_every_nanosecond(tmp_path):
    base = 1_787_267_980_123_456_789
    rows = [{"input_toks": 1, "output_toks": 1, "arrival_time_ns": base + n} for n in (0, 1, 257)]
    found = read_arrivals(save(tmp_path, lines(*rows)))
    assert (found.times_s * 1e9).round().tolist() == [0, 1, 257]


def test_a_file_joined_to_itself_is_noticed(tmp_path):
    twice = AZURE.replace(ROWS[0], f"{ROWS[0]}\n{ROWS[0]}")
    found = describe_arrivals(read_arrivals(save(tmp_path, twice)))
    assert found["repeated_rows"] == 1
    assert "1 of 3 arrivals have the time and lengths of another" in found["notes"]
    once = describe_arrivals(read_arrivals(save(tmp_path, AZURE)))
    assert (once["repeated_rows"], once["notes"]) == (0, [])


def test_the_peak_of_a_span_of_decades_takes_no_memory():
    ones = np.ones(3, np.int64)
    times_s = np.array([0.0, 1.0, 3e9])
    found = describe_arrivals(
        Arrivals(times_s=times_s, prompt_tokens=ones, output_tokens=ones, source="")
    )
    assert found["peak_rate_per_s"] == pytest.approx(2 / 60)


def test_lengths_are_read_from_a_packed_table_below_a_blank_line(tmp_path):
    text = "\nnum_prefill_tokens,num_decode_tokens\n10,3\n20,4\n"
    found = read_lengths(save(tmp_path, gzip.compress(text.encode())))
    assert found.output_tokens.tolist() == [3, 4]


def test_options_that_say_nothing_of_the_file_are_refused(tmp_path):
    top = [{"token": "a", "logprob": -0.5}]
    content = [{"token": "a", "logprob": -0.5, "top_logprobs": top}]
    responses = lines({"id": "x", "model": "m", "choices": [{"logprobs": {"content": content}}]})
    out = tmp_path / "out.jsonl"
    for text, options, named in (
        (AZURE, ["--vocabulary", "9"], "--vocabulary has no meaning for arrivals"),
        (responses, ["--vocabulary", "9", "--rate", "2"], "--rate has no meaning for responses"),
        (responses, ["--vocabulary", "9", "--sort"], "--sort has no meaning for responses"),
    ):
        path = save(tmp_path, text)
        told = CliRunner().invoke(app, ["import", str(path), "--out", str(out), *options])
        assert told.exit_code == 2
        assert told.stderr.startswith(f"error: {named}")
        assert not out.exists()


def test_an_echoed_prompt_among_completions_is_named(tmp_path):
    logprobs = {"tokens": ["p"], "token_logprobs": [None], "top_logprobs": [None]}
    path = save(tmp_path, lines({"model": "m", "choices": [{"logprobs": logprobs}]}))
    told = CliRunner().invoke(
        app, ["import", str(path), "--out", str(tmp_path / "o.jsonl"), "--vocabulary", "9"]
    )
    assert told.exit_code == 2
    assert "ask without echo" in told.stderr
