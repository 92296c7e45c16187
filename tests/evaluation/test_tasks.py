"""Every task builds examples that fit, hold their answer, and are scored right by it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reports.evaluation.example import Example, Request, largest
from reports.evaluation.files import chosen, read_rows
from reports.evaluation.records import around
from reports.evaluation.tasks import LONG_TASKS, TASKS, build, parse_tasks

LONG = 3000


def count(text: str) -> int:
    return len(text) // 4 + 8


def request(context: int = LONG, n: int = 3, seed: int = 0, prompts=None) -> Request:
    return Request(n=n, seed=seed, context=context, count=count, prompts=prompts)


def check(examples: list[Example], context: int) -> None:
    assert len({example.key for example in examples}) == len(examples)
    for example in examples:
        assert count(example.prompt) <= context
        if example.metric in ("exact", "every") and example.task != "gsm8k":
            for answer in example.answer:
                assert answer.lower() in example.prompt.lower()
        if example.reply:
            assert example.score(example.reply) == 1.0
        if example.metric not in ("none", "instructions"):
            assert example.score("I do not know.") < 0.2


@pytest.mark.parametrize("name", [name for name in TASKS if name != "qmsum"])
def test_a_task_without_files_makes_its_examples_up(name):
    examples = build([name], request())
    assert len(examples) == 3
    check(examples, LONG)
    assert examples == build([name], request())
    if name in LONG_TASKS:
        assert all(count(example.prompt) > 0.9 * LONG for example in examples)
        assert examples != build([name], request(seed=1))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_the_public_files(name, data_dir):
    context = 5000  # the shorter chats have about 4,000 tokens, counted as here
    examples = build([name], request(context, n=2, prompts=data_dir / "prompts"))
    assert len(examples) == 2
    check(examples, context)


def test_records_are_cut_around_the_one_asked_for():
    records = list(range(10))
    for place in records:
        for k in range(1, 11):
            kept = around(records, place, k)
            assert len(kept) == k
            assert place in kept
    assert around(records, 0, 3) == [0, 1, 2]
    assert around(records, 9, 3) == [7, 8, 9]


def test_needles_lie_at_spread_depths():
    examples = build(["needle"], request(n=8))
    depths = sorted(example.details["depths"][0] for example in examples)
    assert depths == [i / 8 for i in range(8)]
    for example in examples:
        place = example.prompt.index(example.reply) / len(example.prompt)
        assert place == pytest.approx(example.details["depths"][0], abs=0.08)


def test_the_longest_prefix_that_fits_is_found():
    for limit in range(1, 30):
        assert largest(lambda k: "x" * k, 20, limit, len) == min(limit, 20)
    with pytest.raises(ValueError, match=r"context must be >= 5 tokens.*context=4"):
        largest(lambda k: "x" * (4 + k), 20, 4, len)


def test_a_key_changes_with_anything_in_the_example():
    example = build(["needle"], request(n=1))[0]
    assert example.key == replace(example).key
    assert example.key != replace(example, reply="other").key
    assert example.key != replace(example, max_tokens=7).key
    json.dumps(dict(example.details))


def test_bad_requests_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"tasks must be among needle, .*got 'haystack'"):
        parse_tasks("needle,haystack")
    with pytest.raises(ValueError, match="tasks must be among"):
        parse_tasks(" , ")
    assert parse_tasks("kv, needle,kv") == ("kv", "needle")
    with pytest.raises(ValueError, match="n must be >= 1"):
        request(n=0)
    with pytest.raises(ValueError, match="qmsum needs the public prompt files"):
        build(["qmsum"], request())
    with pytest.raises(ValueError, match=r"cannot be read"):
        build(["kv"], request(prompts=tmp_path))
    with pytest.raises(ValueError, match="n must be <= 1"):
        chosen([1], 2, None, "kv")
    bad = tmp_path / "bad.gz"
    bad.write_bytes(b"plain")
    with pytest.raises(ValueError, match="cannot be read"):
        read_rows(bad)
