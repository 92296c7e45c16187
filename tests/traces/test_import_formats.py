"""Every format of arrivals: what is read, what is refused, and our own form there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrivals import ArrivalsError, read_arrivals
from traces.import_files import read, read_lengths

BENCH = {
    "date": "20260101-000000",
    "backend": "vllm",
    "model_id": "some/model",
    "max_concurrency": 2,
    "duration": 3.0,
    "completed": 2,
    "input_lens": [10, 99, 20, 30],
    "output_lens": [3, 0, 4, 5],
    "ttfts": [0.1, 0.0, 0.1, 0.1],
    "itls": [[0.1], [], [0.1], [0.1]],
    "start_times": [7.0, 7.1, 8.25, 8.5],
    "errors": ["", "timeout", "", ""],
}


def save(tmp_path: Path, text: str, name: str = "arrivals") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refused(path: Path, message: str, **options: object) -> None:
    with pytest.raises(ArrivalsError) as caught:
        read(path, None, **options)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


SERVING_SIM = [
    {"input_toks": 30, "output_toks": 5, "arrival_time_ns": 1_500_000_000},
    {"input_toks": 10, "output_toks": 3, "arrival_time_ns": 0},
    {"input_toks": 20, "output_toks": 4, "arrival_time_ns": 1_250_000_000},
]
SERVING_SIM_RUN = [
    {"request_id": "b-0", "input_toks": 10, "output_toks": 3, "arrival_time": 1787267980.0},
    {"request_id": "b-1", "input_toks": 20, "output_toks": 4, "arrival_time": 1787267981.25},
    {"request_id": "b-2", "input_toks": 30, "output_toks": 5, "arrival_time": 1787267981.5},
]
ALIASED = [
    {"created_time": 1000.0, "input_tokens": 10, "output_tokens": 3},
    {"created_time": 2250.0, "input_tokens": 20, "output_tokens": 4},
    {"created_time": 2500.0, "input_tokens": 30, "output_tokens": 5},
]
LEDGER = [
    {"table": "step", "step": 0, "now_ns": 0},
    {
        "table": "request",
        "arrival_ns": 0,
        "prompt_tokens": 10,
        "tokens": 3,
        "finish_reason": "stop",
    },
    {"table": "request", "arrival_ns": 9, "prompt_tokens": 10, "tokens": 0, "finish_reason": "x"},
    {"table": "request", "arrival_ns": 1_500_000_000, "prompt_tokens": 30, "tokens": 5},
    {"table": "request", "arrival_ns": 1_250_000_000, "prompt_tokens": 20, "tokens": 4},
    {"table": "token", "request_id": 0},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llmservingsim", lines(SERVING_SIM)),
        ("llmservingsim-run", lines(SERVING_SIM_RUN)),
        ("mooncake", lines(ALIASED)),
        ("vllm-bench", json.dumps(BENCH)),
        ("vllm-bench", json.dumps(BENCH, indent=1)),
        ("entropic-ledger", lines(LEDGER)),
    ],
)
def test_every_source_gives_the_same_arrivals(tmp_path, name: str, text: str):
    path = save(tmp_path, text)
    found = read_arrivals(path)
    np.testing.assert_allclose(found.times_s, [0.0, 1.25, 1.5], atol=1e-6)
    assert found.prompt_tokens.tolist() == [10, 20, 30]
    assert found.output_tokens.tolist() == [3, 4, 5]
    assert found.source == f"{name}:{path.name}"
    assert found.dropped == (1 if name in ("vllm-bench", "entropic-ledger") else 0)
    assert len(read_arrivals(path, limit=2)) == 2


def test_rows_out_of_order_are_sorted_with_a_note_where_no_order_was_promised(tmp_path):
    found = read_arrivals(save(tmp_path, lines(SERVING_SIM)))
    assert found.notes == ("1 of 3 rows lay before the row above; sorted by time",)


def test_rows_out_of_order_are_refused_where_order_was_promised(tmp_path):
    path = save(tmp_path, lines([ALIASED[0], ALIASED[2], ALIASED[1]]))
    refused(
        path, ":3: created_time: lies before the row above, in a format in time order; got 2250"
    )
    found = read_arrivals(path, sort=True)
    assert found.output_tokens.tolist() == [3, 4, 5]
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ALIASED[0] | {"created_time": -1}], ":1: created_time: must be >= 0; got -1"),
        ([ALIASED[0], ALIASED[1] | {"input_tokens": 0}], ":2: input_tokens: must be >= 1; got 0"),
        (
            [ALIASED[0], ALIASED[1] | {"output_tokens": True}],
            ":2: output_tokens: must be a whole number from 0 to",
        ),
        ([{"session_id": "a", "delay": 5.0, "input_length": 1, "output_length": 1}], ":1: delay: "),
        (
            [{"session_id": "a", "arrival_time_ns": 0, "sub_requests": []}],
            ":1: sub_requests: rows of a",
        ),
        (
            [ALIASED[0] | {"hash_ids": [1, 2]}],
            ":1: hash_ids: 10 tokens are at most 1 blocks of 512 (block_tokens); got 2",
        ),
        (
            [ALIASED[0] | {"input_tokens": 5000, "hash_ids": [1, 2]}],
            ":1: hash_ids: 5000 tokens are 9 to 10 blocks of 512 (block_tokens); got 2",
        ),
        ([ALIASED[0] | {"hash_ids": [[1]]}], ":1: hash_ids: ids must be whole numbers; got [1]"),
        ([ALIASED[0] | {"hash_ids": [1.5]}], ":1: hash_ids: ids must be whole numbers; got 1.5"),
        ([ALIASED[0] | {"hash_ids": 5}], ":1: hash_ids: must be a list; got 5"),
        ([{"table": "step"}], ": holds no arrivals"),
        ([BENCH, BENCH], ":2: holds more than one result; keep one in a file"),
        ([{"input_lens": [1]}], ": input_lens: the result has no single requests"),
        (
            [{"request_throughput": 1.0, "total_input_tokens": 9}],
            ": input_lens: the result has no single requests; run vllm bench serve with",
        ),
        ([BENCH | {"start_times": [1.0]}], ": start_times: must be a list as long as input_lens"),
        ([BENCH | {"output_lens": [0, 0, 0, 0]}], ": holds no arrivals"),
        (
            [BENCH | {"input_lens": [1, 1, 1, "x"]}],
            ":request 3: input_lens: must be a whole number from",
        ),
        ([{"entropic_arrivals": 2}], ":1: entropic_arrivals: must be 1; got 2"),
        ([{"entropic_arrivals": 1}], ": holds no arrivals"),
        ([{"entropic_arrivals": 1, "notes": 5}], ":1: notes: must be list; got 5"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(tmp_path, rows, message: str):
    refused(save(tmp_path, lines(rows)), message)


def test_a_result_without_start_times_still_has_lengths(tmp_path):
    document = {name: value for name, value in BENCH.items() if name != "start_times"}
    path = save(tmp_path, json.dumps(document))
    refused(path, ": start_times: missing")
    found = read_lengths(path)
    assert found.prompt_tokens.tolist() == [10, 20, 30]
    assert "no times" in found.notes[0]


def test_a_bench_result_says_when_its_times_follow_the_server(tmp_path):
    notes = read_arrivals(save(tmp_path, json.dumps(BENCH))).notes
    assert notes[0] == "served model: some/model"
    assert notes[1].startswith("at most 2 requests were open at once")


def test_requests_cut_short_are_noted_in_a_ledger(tmp_path):
    assert read_arrivals(save(tmp_path, lines(LEDGER))).notes[-1].startswith("2 requests did not")


def test_utc_clocks_are_read_and_other_zones_refused(tmp_path):
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.5+00:00,5,1\n"
    assert len(read_arrivals(save(tmp_path, f"{head}2024-05-10 00:00:02Z,5,1\n"))) == 2
    path = save(tmp_path, f"{head}2024-05-10 00:00:02+02:00,5,1\n")
    refused(path, ":3: TIMESTAMP: must be a time in UTC")


def test_prompts_given_by_token_share_what_they_begin_with(tmp_path):
    shared = list(range(40))
    rows = [
        {
            "input_toks": 50,
            "output_toks": 1,
            "arrival_time_ns": t,
            "input_tok_ids": shared + [t] * 10,
        }
        for t in (0, 1)
    ]
    found = read_arrivals(save(tmp_path, lines(rows)))
    first, second = (found.prefixes.of_row(row).tolist() for row in (0, 1))
    assert found.prefixes.block_tokens == 16
    assert first[:2] == second[:2]
    assert first[2] != second[2]


def test_sorting_moves_all_that_belongs_to_a_row(tmp_path):
    rows = [
        {
            "arrival_s": t,
            "prompt_tokens": 20 + t,
            "output_tokens": 1,
            "tenant": f"t{t}",
            "block_ids": [t],
        }
        for t in (0, 7, 3)
    ]
    found = read_arrivals(save(tmp_path, lines(rows)), sort=True)
    assert found.prompt_tokens.tolist() == [20, 23, 27]
    assert [found.tenants.names[code] for code in found.tenants.codes] == ["t0", "t3", "t7"]
    doubled = lines(rows + [row | {"arrival_s": 8 + row["arrival_s"]} for row in rows])
    found = read_arrivals(save(tmp_path, doubled), sort=True)
    blocks = [found.prefixes.of_row(row).tolist() for row in range(6)]
    assert blocks[:3] == blocks[3:]
    assert len({block for (block,) in blocks}) == 3


def test_block_size_can_be_told(tmp_path):
    rows = [ALIASED[0] | {"hash_ids": [4, 9, 7]}]
    assert read(save(tmp_path, lines(rows)), None, block_tokens=4).prefixes.block_tokens == 4


def test_a_table_with_a_timestamp_of_unknown_unit_is_not_taken_for_milliseconds(tmp_path):
    refused(save(tmp_path, "timestamp,input_tokens,output_tokens\n1,5,5\n"), ":1: columns")


SAMPLES = [lines(rows) for rows in (SERVING_SIM, SERVING_SIM_RUN, ALIASED, LEDGER, [BENCH])]
SAMPLES += ["TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.5,5,1\n"]
SAMPLES += ['# {"entropic_arrivals": 1}\narrival_s,prompt_tokens,output_tokens\n0,1,1\n']


@given(
    text=st.sampled_from(SAMPLES),
    at=st.floats(0, 1),
    length=st.integers(0, 6),
    instead=st.one_of(
        st.binary(max_size=5),
        st.sampled_from(
            [b"-", b"null", b"1e400", b"NaN", b"9" * 30, b"[", b'"', b"\n", b"\0", b"1.5"]
        ),
    ),
)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path_factory, text: str, at: float, length: int, instead: bytes
):
    whole = text.encode()
    place = int(at * len(whole))
    path = tmp_path_factory.mktemp("x") / "a"
    path.write_bytes(whole[:place] + instead + whole[place + length :])
    message, found = "", None
    try:
        found = read_arrivals(path)
    except ArrivalsError as error:
        message = str(error)
    if found is None:
        assert message.startswith(str(path))
        assert "\n" not in message
        return
    assert (np.diff(found.times_s) >= 0).all()
    assert found.times_s[0] == 0.0
    assert min(found.prompt_tokens.min(), found.output_tokens.min()) >= 1


@pytest.mark.parametrize(
    ("name", "rows", "blocks", "reuse"),
    [
        ("mooncake_fast25_conversation.jsonl.gz", 12_031, 288_500, 0.366),
        ("mooncake_fast25_synthetic.jsonl.gz", 3_993, 121_877, 0.640),
    ],
)
def test_public_traces_reuse_what_their_page_says(data_dir, name, rows, blocks, reuse):
    found = read_arrivals(data_dir / "arrivals" / name)
    said = found.prefixes.reuse(found.prompt_tokens)
    assert len(found) == rows
    assert said["prefix_blocks"] == blocks
    assert said["prefix_block_reuse"] == pytest.approx(reuse, abs=5e-4)


def test_a_real_engines_run_reads_as_arrivals(data_dir):
    found = read_arrivals(data_dir / "golden/RTX4090/Llama-3.1-8B/run/requests.jsonl")
    assert len(found) == 300
    assert found.rate_per_s == pytest.approx(10.27, abs=0.01)


def test_public_lengths_without_times_can_be_drawn_from(data_dir):
    found = read_lengths(data_dir / "arrivals/vidur_arxiv_summarization_lengths.csv.gz")
    assert len(found) == 28_257
    assert np.median(found.prompt_tokens) == 2730
