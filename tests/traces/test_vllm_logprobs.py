"""Responses with log-probabilities become entropy intervals that hold the model's own entropies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrivals import ArrivalsError
from traces.intervals import (
    describe_intervals,
    is_intervals,
    read_intervals,
    write_intervals,
)
from traces.intervals_plot import plot_intervals
from traces.vllm_logprobs import is_responses, read_responses

VOCABULARY, K = 50, 5


def rows(n: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(n, VOCABULARY)) * 3.0
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def sampled(log_p: np.ndarray, seed: int = 1) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(rng.choice(VOCABULARY, p=np.exp(row) / np.exp(row).sum())) for row in log_p]


def top(row: np.ndarray, token: int, *, as_vllm: bool) -> list[int]:
    """The k likeliest, or as vLLM's chat has it: the sampled token first, then k - 1 others."""
    order = np.argsort(-row)[:K].tolist()
    return order if token in order or not as_vllm else [token, *order[: K - 1]]


def chat(log_p: np.ndarray, tokens: list[int], *, as_vllm: bool = False) -> dict[str, object]:
    content = [
        {
            "token": str(token),
            "logprob": row[token],
            "top_logprobs": [
                {"token": str(i), "logprob": row[i]} for i in top(row, token, as_vllm=as_vllm)
            ],
        }
        for row, token in zip(log_p, tokens, strict=True)
    ]
    return {
        "id": "chatcmpl-1",
        "model": "m",
        "usage": {"prompt_tokens": 7},
        "choices": [{"finish_reason": "stop", "logprobs": {"content": content}}],
    }


def completion(log_p: np.ndarray, tokens: list[int], *, name: str = "{}") -> dict[str, object]:
    logprobs = {
        "tokens": [name.format(token) for token in tokens],
        "token_logprobs": [row[t] for row, t in zip(log_p, tokens, strict=True)],
        "top_logprobs": [
            {name.format(i): row[i] for i in {t, *top(row, t, as_vllm=False)}}
            for row, t in zip(log_p, tokens, strict=True)
        ],
    }
    return {"id": "c", "model": "m", "choices": [{"finish_reason": "length", "logprobs": logprobs}]}


def save(tmp_path, *documents: object, indent: int | None = None):
    path = tmp_path / "responses.json"
    path.write_text("".join(json.dumps(d, indent=indent) + "\n" for d in documents))
    return path


@pytest.mark.parametrize("style", ["chat", "vllm chat", "completion", "completion by id"])
def test_intervals_hold_the_exact_entropies(tmp_path, style: str):
    log_p = rows(300)
    tokens = sampled(log_p)
    document = {
        "chat": lambda: chat(log_p, tokens),
        "vllm chat": lambda: chat(log_p, tokens, as_vllm=True),
        "completion": lambda: completion(log_p, tokens),
        "completion by id": lambda: completion(log_p, tokens, name="token_id:{}"),
    }[style]()
    found = read_responses(save(tmp_path, document), vocabulary=VOCABULARY)
    exact = -(np.exp(log_p) * log_p).sum(axis=1)
    assert (found.h_low <= exact + 1e-9).all()
    assert (exact <= found.h_high + 1e-9).all()
    assert found.surprisal == pytest.approx([-row[t] for row, t in zip(log_p, tokens, strict=True)])
    outside = [t not in np.argsort(-row)[:K] for row, t in zip(log_p, tokens, strict=True)]
    assert 5 < sum(outside) < 150


def test_texts_that_hide_a_token_cannot_break_the_lower_end(tmp_path):
    log_p = np.log([[0.4, 0.4, 0.1, 0.1 - 1e-9, 1e-9]])
    answer = completion(log_p, [0])
    two_of_one_text = {"0": log_p[0, 0], "2": log_p[0, 2]}  # tokens 0 and 1 read alike
    answer["choices"][0]["logprobs"]["top_logprobs"] = [two_of_one_text]
    found = read_responses(save(tmp_path, answer), vocabulary=5)
    assert found.h_low[0] <= -(np.exp(log_p) * log_p).sum()


@pytest.mark.parametrize("form", ["one", "indented", "lines", "list", "batch"])
def test_every_way_to_keep_responses_reads_alike(tmp_path, form: str):
    log_p = rows(4)
    one = chat(log_p, sampled(log_p))
    if form in ("one", "indented"):
        path = save(tmp_path, one, indent=1 if form == "indented" else None)
    elif form == "list":
        path = save(tmp_path, [one, one])
    elif form == "batch":
        path = save(tmp_path, *[{"custom_id": "x", "response": {"body": one}}] * 2)
    else:
        path = save(tmp_path, one, one)
    assert is_responses(path)
    found = read_responses(path, vocabulary=VOCABULARY)
    assert len(found.requests) == (1 if form in ("one", "indented") else 2)
    assert found.requests[0].prompt_tokens == 7
    assert found.requests[0].tokens == 4


def test_a_trace_of_intervals_reads_back_equal_and_can_be_drawn(tmp_path):
    parts = [chat(rows(n, n), sampled(rows(n, n))) for n in (3, 5)]
    made = read_responses(save(tmp_path, *parts), vocabulary=VOCABULARY, licence="none")
    for suffix in (".jsonl", ".jsonl.gz"):
        path = tmp_path / f"x{suffix}"
        write_intervals(path, made)
        assert is_intervals(path)
        found = read_intervals(path)
        assert found.requests == made.requests
        assert found.h_low.tolist() == made.h_low.tolist()
        assert describe_intervals(found) == describe_intervals(made)
    low, high, count = made.by_position()
    assert count.tolist() == [2, 2, 2, 1, 1]
    assert low[0] == pytest.approx(made.h_low[[0, 3]].mean())
    assert (low <= high).all()
    for name in ("a.svg", "b.svg"):
        plot_intervals(tmp_path / name, made)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "cannot be simulated" in describe_intervals(made)["note"]


def broken(**changes: object) -> dict[str, object]:
    log_p = rows(2)
    document = chat(log_p, sampled(log_p))
    document["choices"][0] |= changes
    return document


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (broken(logprobs=None), ":1: choices[0].logprobs: must be there: ask the server"),
        (broken(logprobs={"content": [{"token": "a"}]}), ":1: choices[0].logprobs: cannot be read"),
        (
            broken(logprobs={"content": [{"token": "a", "logprob": 2.0, "top_logprobs": []}]}),
            ":1: choices[0].logprobs: cannot be read",
        ),
        (broken(logprobs={"content": []}), ": holds no token with log-probabilities"),
        ({"choices": 5}, ":1: choices: must be a list"),
    ],
)
def test_a_response_that_cannot_be_used_is_named_in_one_line(tmp_path, document, named: str):
    path = save(tmp_path, document)
    with pytest.raises(ArrivalsError) as caught:
        read_responses(path, vocabulary=VOCABULARY)
    assert str(caught.value).startswith(f"{path}{named}")
    assert "\n" not in str(caught.value)


@given(
    at=st.floats(0, 1),
    length=st.integers(0, 8),
    instead=st.sampled_from(
        [b"", b"null", b"1e400", b"NaN", b"-1", b"[", b'"', b"\n", b"{}", b"9"]
    ),
    form=st.sampled_from(["chat", "completion", "list", "intervals"]),
)
def test_damaged_responses_and_intervals_are_read_or_refused_in_one_line(
    tmp_path_factory, at: float, length: int, instead: bytes, form: str
):
    folder = tmp_path_factory.mktemp("x")
    log_p = rows(2)
    answer = (completion if form == "completion" else chat)(log_p, sampled(log_p))
    path = save(folder, [answer] if form == "list" else answer)
    if form == "intervals":
        made = read_responses(path, vocabulary=VOCABULARY)
        path = folder / "h.jsonl"
        write_intervals(path, made)
    whole = path.read_bytes()
    place = int(at * len(whole))
    path.write_bytes(whole[:place] + instead + whole[place + length :])
    message, found = "", None
    try:
        found = (
            read_intervals(path)
            if form == "intervals"
            else read_responses(path, vocabulary=VOCABULARY)
        )
    except ArrivalsError as error:
        message = str(error)
    if found is None:
        assert message.startswith(str(path))
        assert "\n" not in message
    else:
        assert (found.h_low <= found.h_high + 1e-9).all()


def test_a_vocabulary_too_small_is_refused(tmp_path):
    log_p = rows(20)
    path = save(tmp_path, chat(log_p, sampled(log_p)))
    with pytest.raises(ArrivalsError, match="vocabulary"):
        read_responses(path, vocabulary=4)


def test_a_damaged_trace_of_intervals_is_named(tmp_path):
    log_p = rows(3)
    path = tmp_path / "x.jsonl"
    write_intervals(path, read_responses(save(tmp_path, chat(log_p, [0, 1, 2])), vocabulary=50))
    head, row = path.read_text().splitlines()
    values = json.loads(row)
    for name, value in (("h_low", [9, 9, 9]), ("h_high", [1]), ("surprisal", "x")):
        path.write_text(f"{head}\n{json.dumps(values | {name: value})}\n")
        with pytest.raises(ArrivalsError) as caught:
            read_intervals(path)
        assert str(caught.value).startswith(f"{path}: ")
