"""Prompts: chosen by seed, read from the public files, answers checked."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from traces.prompts import (
    BUILTIN,
    SOURCES,
    TASK_CLASSES,
    Prompt,
    PromptsError,
    check_answer,
    load_prompts,
    read_source,
)

KEY = "54e21f0c-0000-4000-8000-00000000000a"
VALUE = "54e21f0c-0000-4000-8000-00000000000b"


def rows_of(source: str, number: int) -> dict:
    return {
        "ifeval": {"prompt": f"Write {number} words."},
        "self_instruct": {"instruction": f"Do {number}.", "instances": [{"input": "this"}]},
        "humaneval": {"prompt": f"def f{number}():\n"},
        "gsm8k": {"question": f"What is {number}+1?", "answer": f"add\n#### {number + 1}"},
        "mt_bench": {"turns": [f"Tell me about {number}.", "Again."]},
        "longchat_topics_5": {"prompt": f"Record {number}", "topics": [f"The art of {number}"]},
        "longchat_lines_200": {"prompt": f"line {number}", "expected_number": 1000 + number},
        "kv_retrieval_75": {"ordered_kv_records": [[KEY, VALUE]], "key": KEY, "value": VALUE},
    }[source]


@pytest.fixture
def made_dir(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    for source in SOURCES:
        text = "".join(json.dumps(rows_of(source.name, i)) + "\n" for i in range(6))
        gz = source.file.endswith(".gz")
        (folder / source.file).write_bytes(gzip.compress(text.encode()) if gz else text.encode())
    return tmp_path


def answered(answer: str | None) -> Prompt:
    return Prompt(prompt_id="made/0", task_class="x", source="made", text="?", answer=answer)


def test_every_class_gets_its_share_spread_over_its_sources(made_dir):
    prompts = load_prompts(made_dir, per_class=6, seed=3)
    assert Counter(p.task_class for p in prompts) == dict.fromkeys(TASK_CLASSES, 6)
    long = Counter(p.source for p in prompts if p.task_class == "long")
    assert set(long.values()) == {2}
    assert len({p.prompt_id for p in prompts}) == len(prompts)


def test_the_choice_depends_on_the_seed_alone_and_grows_by_appending(made_dir):
    assert load_prompts(made_dir, 4, seed=1) == load_prompts(made_dir, 4, seed=1)
    assert load_prompts(made_dir, 4, seed=1) != load_prompts(made_dir, 4, seed=2)
    small, large = load_prompts(made_dir, 2, seed=1), load_prompts(made_dir, 4, seed=1)
    for task_class in TASK_CLASSES:
        wide = [p for p in large if p.task_class == task_class]
        assert [p for p in small if p.task_class == task_class] == wide[:2]


def test_a_prompt_id_names_the_row_it_came_from(made_dir):
    for prompt in load_prompts(made_dir, 3, seed=0):
        source, row = prompt.prompt_id.split("/")
        assert read_source(made_dir / "prompts", source)[int(row)] == prompt


def test_bad_arguments_and_files_are_named(made_dir):
    with pytest.raises(PromptsError, match="per_class must be >= 1; got 0"):
        load_prompts(made_dir, 0, seed=0)
    with pytest.raises(PromptsError, match="per_class must be <= 6 for class 'code'; got 7"):
        load_prompts(made_dir, 7, seed=0)
    path = made_dir / "prompts" / "mt_bench_questions.jsonl"
    path.write_text('{"turns": ["a"]}\n{"turns": []}\n')
    with pytest.raises(PromptsError, match=r"mt_bench_questions\.jsonl:2: not a mt_bench row"):
        read_source(path.parent, "mt_bench")
    path.unlink()
    with pytest.raises(PromptsError, match=r"mt_bench_questions\.jsonl: cannot be read"):
        read_source(path.parent, "mt_bench")


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("18", "She makes $18 a day.", True),
        ("18", "16 - 3 - 4 = 9, 9 * 2 = 18\n#### 18", True),
        ("18", "#### 18\nThat took 3 steps.", True),
        ("18", "18 is wrong, it is 20.", False),
        ("1,200", "#### 1200", True),
        ("-3", "#### -3.0", True),
        ("18", "no idea", False),
        (VALUE, f"The value of {KEY} is {VALUE.upper()}.", True),
        (VALUE, f"The value is {KEY}.", False),
        ("The art of tea", "We began with the ART of\n tea.", True),
        ("The art of tea", "The art of coffee.", False),
        (None, "anything", None),
    ],
)
def test_answers_are_checked_by_their_kind(answer, text, right):
    assert check_answer(answered(answer), text) is right


def test_builtin_prompts_cover_classes_and_state_right_answers():
    assert {p.task_class for p in BUILTIN} == {"instruction", "code", "reasoning", "freeform"}
    assert len({p.prompt_id for p in BUILTIN}) == len(BUILTIN)
    assert [p.answer for p in BUILTIN if p.answer] == [str(240 // (15 - 3)), str((20 - 4 * 3) // 2)]


def test_public_prompts_load_and_their_own_answers_pass(data_dir):
    for prompt in load_prompts(data_dir, per_class=40, seed=0):
        expected = None if prompt.answer is None else True
        assert check_answer(prompt, f"So it is {prompt.answer}.") is expected
        assert (prompt.answer is not None) == (prompt.task_class in ("long", "reasoning"))


def test_long_prompts_hold_their_answer_and_another_rows_answer_fails(data_dir):
    for name in ("longchat_topics_5", "longchat_lines_200", "kv_retrieval_75"):
        prompts = read_source(data_dir / "prompts", name)
        assert all(p.answer.lower() in p.text.lower() for p in prompts)
        assert all(6_000 < len(p.text) < 30_000 for p in prompts)
        shifted = zip(prompts, prompts[1:] + prompts[:1], strict=True)
        wrong = [check_answer(p, other.answer) for p, other in shifted if p.answer != other.answer]
        assert len(wrong) > 40
        assert not any(wrong)
