"""Arrival traces: hand-made files in every format, the real files, and the errors."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrivals import Arrivals, ArrivalsError, poisson, read_arrivals, rescaled

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.5000000,10,3
2023-11-17 00:00:00.7500000,20,4
2023-11-17 00:00:01.0000000,30,5
"""
MOONCAKE = """{"timestamp": 3000, "input_length": 10, "output_length": 3, "hash_ids": [0]}
{"timestamp": 4250, "input_length": 20, "output_length": 4, "hash_ids": [1]}

{"timestamp": 4500, "input_length": 30, "output_length": 5, "hash_ids": []}
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,10,3,13,Conversation log
6,ChatGPT,99,0,99,API log
6.25,GPT-4,20,4,24,Conversation log
6.5,GPT-4,30,5,35,API log
"""
VIDUR = """arrived_at,num_prefill_tokens,num_decode_tokens
1.5,30,5
0,10,3
1.25,20,4
"""


def save(tmp_path: Path, text: str, name: str = "arrivals") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "dropped"),
    [
        ("azure-2023", AZURE, 0),
        ("mooncake", MOONCAKE, 0),
        ("burstgpt", BURSTGPT, 1),
        ("vidur", VIDUR, 0),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_format_reads_the_same_arrivals(tmp_path, name, text, dropped, suffix):
    path = save(tmp_path, text, f"x{suffix}")
    if suffix:
        path.write_bytes(gzip.compress(text.encode()))
    arrivals = read_arrivals(path)
    np.testing.assert_allclose(arrivals.times_s, [0.0, 1.25, 1.5], atol=1e-9)
    assert arrivals.prompt_tokens.tolist() == [10, 20, 30]
    assert arrivals.output_tokens.tolist() == [3, 4, 5]
    assert arrivals.source == f"{name}:{path.name}"
    assert arrivals.dropped == dropped
    assert arrivals.rate_per_s == pytest.approx(2 / 1.5)


def test_a_limit_keeps_the_first_usable_rows(tmp_path):
    arrivals = read_arrivals(save(tmp_path, BURSTGPT), limit=2)
    assert arrivals.prompt_tokens.tolist() == [10, 20]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            AZURE.replace("20,4", "x,4"),
            ":3: ContextTokens: must be a whole number from 0 to 2147483647; got 'x'",
        ),
        (
            AZURE.replace("2023-11-17 00:00:00.7500000", ""),
            ":3: TIMESTAMP: must be a time in UTC, as 2023-11-16 18:01:51.9; got ''",
        ),
        (
            AZURE.replace("20,4", "20"),
            ":3: GeneratedTokens: must be a whole number from 0 to 2147483647; got None",
        ),
        (AZURE.replace("30,5", "30,0"), ":4: GeneratedTokens: must be >= 1; got 0"),
        (
            AZURE.replace("30,5", "30,-5"),
            ":4: GeneratedTokens: must be a whole number from 0 to 2147483647; got '-5'",
        ),
        (
            AZURE.replace("30,5", "30,1.5"),
            ":4: GeneratedTokens: must be a whole number from 0 to 2147483647; got '1.5'",
        ),
        (
            AZURE.replace("30,5", "30,inf"),
            ":4: GeneratedTokens: must be a whole number from 0 to 2147483647; got 'inf'",
        ),
        (VIDUR.replace("1.25", "nan"), ":4: arrived_at: must be finite; got 'nan'"),
        (MOONCAKE.replace("4500", "null"), ":4: timestamp: must be a number; got None"),
        (MOONCAKE.replace("[1]}", "[1"), ":2: must be JSON"),
        (MOONCAKE + "[1]\n", ":5: must be a JSON object; got '[1]'"),
        ("a,b\n1,2\n", ":1: columns ['a', 'b'] match no known format"),
        ("", ": is empty"),
        (AZURE.splitlines()[0] + "\n", ": holds no arrivals"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path, text, message):
    path = save(tmp_path, text)
    with pytest.raises(ArrivalsError) as caught:
        read_arrivals(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_unreadable_files_are_named(tmp_path):
    broken = tmp_path / "x.gz"
    broken.write_bytes(gzip.compress(AZURE.encode())[:-9])
    for path in (broken, tmp_path / "nowhere"):
        with pytest.raises(ArrivalsError, match=f"{path.name}: cannot be read"):
            read_arrivals(path)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_must_be_finite_and_positive(rate):
    arrivals = poisson(1.0, 3, np.random.default_rng(0))
    for call in (
        lambda: poisson(rate, 3, np.random.default_rng(0)),
        lambda: rescaled(arrivals, rate),
    ):
        with pytest.raises(ArrivalsError, match=f"rate_per_s must be finite and > 0; got {rate}"):
            call()


def test_poisson_gaps_have_exponential_mean_and_spread():
    n, rate = 20_000, 4.0
    gaps = np.diff(poisson(rate, n, np.random.default_rng(1)).times_s)
    error = 5 / math.sqrt(n)  # five standard errors, relative: the gap's cv is 1
    assert abs(gaps.mean() * rate - 1) < error
    assert abs(gaps.std() * rate - 1) < 2 * error
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < error


def test_the_same_seed_draws_the_same_arrivals():
    a, b, c = (poisson(2.0, 50, np.random.default_rng(seed)).times_s for seed in (7, 7, 8))
    assert a.tolist() == b.tolist() != c.tolist()


@given(
    gaps=st.lists(st.floats(0, 1e3), min_size=1, max_size=30).filter(lambda g: sum(g) > 1e-3),
    rate=st.floats(1e-3, 1e3),
)
def test_rescaling_sets_the_rate_and_keeps_the_shape(gaps, rate):
    times_s = np.concatenate([[0.0], np.cumsum(gaps)])
    before = Arrivals(times_s=times_s, prompt_tokens=None, output_tokens=None, source="made")
    after = rescaled(before, rate)
    assert after.rate_per_s == pytest.approx(rate)
    np.testing.assert_allclose(
        after.times_s * after.rate_per_s, before.times_s * before.rate_per_s, rtol=1e-9, atol=1e-12
    )


def test_rescaling_needs_two_different_times():
    with pytest.raises(ArrivalsError, match="two arrivals at different times"):
        rescaled(poisson(1.0, 1, np.random.default_rng(0)), 2.0)


@pytest.mark.parametrize(
    ("name", "rows", "span_s", "median_prompt", "median_output"),
    [
        ("azure_llm_2023_conv.csv.gz", 19_366, 3501.7, 1020, 129),
        ("azure_llm_2023_code.csv.gz", 8_819, 3435.9, 1469, 13),
        ("mooncake_fast25_conversation.jsonl.gz", 12_031, 3537.0, 6909, 350),
        ("burstgpt_1_first400.csv", 383, 37_269.0, None, None),
    ],
)
def test_public_files_read_as_their_page_describes_them(
    data_dir, name, rows, span_s, median_prompt, median_output
):
    arrivals = read_arrivals(data_dir / "arrivals" / name)
    assert len(arrivals) == rows
    assert arrivals.times_s[-1] == pytest.approx(span_s, abs=0.1)
    assert (np.diff(arrivals.times_s) >= 0).all()
    if median_prompt is not None:
        assert np.median(arrivals.prompt_tokens) == median_prompt
        assert np.median(arrivals.output_tokens) == median_output


def test_a_file_of_lengths_without_times_is_refused(data_dir):
    with pytest.raises(ArrivalsError, match="arrived_at: is missing: lengths without times"):
        read_arrivals(data_dir / "arrivals" / "vidur_arxiv_summarization_lengths.csv.gz")
