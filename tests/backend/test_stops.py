"""Streamed text equals its offline definition, however characters and stops fall into tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.stops import Detokeniser, Reply

ALPHABET = "ab\u00e9\u20ac\U0001f600"  # one to four bytes each
PIECES = [
    *(each.encode() for each in ALPHABET),
    *(bytes([byte]) for text in ALPHABET[2:] for byte in text.encode()),
    b"\xff",
    b"ab",
    b"ba\xe2",
    b"\x82\xaca",
    b"",
]
TOKENS = st.lists(st.integers(0, len(PIECES) - 1), max_size=24)
STOPS = st.lists(st.text(ALPHABET + "\ufffd", min_size=1, max_size=4), max_size=3)


def decode(tokens: Sequence[int]) -> str:
    """Decode as a byte-level vocabulary does."""
    return b"".join(PIECES[token] for token in tokens).decode(errors="replace")


def cut(text: str, stops: Sequence[str]) -> str:
    """The definition: cut before the stop that is complete first, the longest of several."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


def stream(reply: Reply, tokens: Sequence[int]) -> tuple[list[str], int]:
    """Push tokens until the reply ends; return what each released and how many were pushed."""
    pieces, pushed = [], 0
    for token in tokens:
        pushed += 1
        ended = reply.push(token)
        pieces.append(reply.take())
        if ended:
            break
    reply.finish()
    pieces.append(reply.take())
    return pieces, pushed


def tokens_of(*texts: bytes) -> list[int]:
    return [PIECES.index(text) for text in texts]


@given(tokens=TOKENS, stops=STOPS)
@example(tokens=tokens_of(b"a", b"\xff", b"b"), stops=["\ufffd"])
@example(tokens=tokens_of(b"ab", b"ab", b"a"), stops=["bab", "aba"])
def test_streamed_text_is_all_text_cut_at_the_first_stop(tokens, stops):
    reply = Reply(decode, stops=stops)
    pieces, _ = stream(reply, tokens)
    assert "".join(pieces) == reply.text == cut(decode(tokens), stops)


@given(tokens=TOKENS, stops=STOPS)
def test_nothing_released_is_ever_taken_back_or_part_of_a_stop(tokens, stops):
    reply, text = Reply(decode, stops=stops), cut(decode(tokens), stops)
    seen = ""
    for piece in stream(reply, tokens)[0]:
        seen += piece
        assert text.startswith(seen)


@given(tokens=TOKENS, stops=STOPS)
def test_a_reply_ends_with_the_token_that_makes_a_stop_certain(tokens, stops):
    reply = Reply(decode, stops=stops)
    _, pushed = stream(reply, tokens)
    before = decode(tokens[: pushed - 1]).rstrip("\ufffd")
    assert cut(before, stops) == before
    if pushed < len(tokens):
        assert reply.stop_reason in stops
        certain = decode(tokens[:pushed]).rstrip("\ufffd")
        assert cut(certain, stops) != certain


@given(tokens=TOKENS, stop_id=st.integers(0, len(PIECES) - 1))
def test_a_stop_token_ends_the_text_before_itself(tokens, stop_id):
    reply = Reply(decode, stop_ids=[stop_id])
    pieces, pushed = stream(reply, tokens)
    kept = tokens[: tokens.index(stop_id)] if stop_id in tokens else tokens
    assert "".join(pieces) == decode(kept)
    assert (reply.stop_reason == stop_id) == (stop_id in tokens)
    assert pushed == min(len(kept) + 1, len(tokens))


@given(runs=st.lists(st.tuples(st.integers(0, len(PIECES) - 1), st.integers(1, 90)), max_size=5))
def test_long_runs_of_bytes_that_are_no_character_join_exactly(runs):
    tokens = [token for token, times in runs for _ in range(times)]
    made = Detokeniser(decode)
    pieces = [made.push(token) for token in tokens]
    assert "".join([*pieces, made.finish()]) == decode(tokens)


def test_a_run_of_invalid_bytes_costs_the_same_for_each_token():
    decoded = []

    def counting(tokens: Sequence[int]) -> str:
        decoded.append(len(tokens))
        return decode(tokens)

    made = Detokeniser(counting)
    for token in tokens_of(b"\xff") * 1000:
        made.push(token)
    assert max(decoded) <= 100


def test_text_that_may_begin_a_stop_is_held_back_until_it_does_not():
    reply = Reply(decode, stops=["abba"])
    pieces, _ = stream(reply, tokens_of(b"a", b"b", b"b", b"b", b"a"))
    assert pieces == ["", "", "", "abbb", "", "a"]
    assert reply.stop_reason is None


def test_a_stop_may_end_in_the_middle_of_a_token():
    reply = Reply(decode, stops=["ba"])
    assert not reply.push(PIECES.index(b"ab"))
    assert reply.push(PIECES.index(b"ab"))
    assert (reply.text, reply.stop_reason) == ("a", "ba")


def test_a_stop_may_be_the_very_first_token():
    reply = Reply(decode, stops=["a"])
    assert reply.push(PIECES.index(b"a"))
    reply.finish()
    assert (reply.take(), reply.text, reply.stop_reason) == ("", "", "a")


@pytest.mark.parametrize("stops", [["ab", "b"], ["b", "ab"]])
def test_of_stops_that_end_together_the_longer_cuts(stops):
    reply = Reply(decode, stops=stops)
    assert reply.push(PIECES.index(b"ab"))
    assert (reply.text, reply.stop_reason) == ("", "ab")


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        ([""], "a stop string must not be empty; got stop=''"),
        (["a", ""], "a stop string must not be empty; got stop=''"),
        ("ab", "stop must be a sequence of strings; got stop='ab'"),
    ],
)
def test_a_stop_that_cannot_be_is_refused(stops, message):
    with pytest.raises(ValueError, match="stop") as caught:
        Reply(decode, stops=stops)
    assert str(caught.value) == message


def test_the_default_models_tokens_join_to_its_own_decoding(smollm2):
    tokenizer = smollm2.tokenizer

    def ours(tokens: Sequence[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=True)

    rng = np.random.default_rng(0)
    written = tokenizer(
        "Na\u00efve \u20ac5 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u4f60\u597d\n  x = 1"
    )
    for tokens in (written.input_ids, rng.integers(0, smollm2.vocabulary, 300).tolist()):
        made = Detokeniser(ours)
        pieces = [made.push(token) for token in tokens]
        assert "".join([*pieces, made.finish()]) == ours(tokens)
        assert sum(map(bool, pieces)) > len(tokens) // 3
