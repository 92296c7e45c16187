"""Prompts by task class, read from the public prompt sets, and the answers that can be checked.

Classes: instruction, code, reasoning, freeform, and long (2 to 6 k tokens, one exact answer each).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traces.builtin import BUILTIN_TEXTS


class PromptsError(ValueError):
    """A prompt set that cannot be used. One line: the file or class, the field, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt; ``answer`` is what ``check_answer`` compares with, None where nothing can be."""

    prompt_id: str  # "<source>/<row>"
    task_class: str
    source: str
    text: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    task_class: str
    name: str
    file: str  # under <data_dir>/prompts
    build: Callable[[Mapping[str, Any]], tuple[str, str | None]]  # row -> text, answer


def _humaneval(row: Mapping[str, Any]) -> tuple[str, None]:
    return f"Complete this Python function.\n\n```python\n{row['prompt'].rstrip()}\n```", None


def _self_instruct(row: Mapping[str, Any]) -> tuple[str, None]:
    parts = [row["instruction"], row["instances"][0]["input"]]
    return "\n\n".join(part for part in parts if part), None


def _gsm8k(row: Mapping[str, Any]) -> tuple[str, str]:
    hint = 'Work it out step by step, then write "####" and the final number on the last line.'
    return f"{row['question']}\n\n{hint}", row["answer"].rpartition("####")[2].strip()


def _key_value(row: Mapping[str, Any]) -> tuple[str, str]:
    pairs = json.dumps(dict(row["ordered_kv_records"]), indent=1)
    text = (
        "The JSON object below maps identifiers to identifiers.\n\n"
        f"{pairs}\n\n"
        f'Which value belongs to the key "{row["key"]}"? Reply with the value alone.'
    )
    return text, row["value"]


SOURCES = (
    _Source("instruction", "ifeval", "ifeval.jsonl.gz", lambda row: (row["prompt"], None)),
    _Source("instruction", "self_instruct", "self_instruct_user_oriented.jsonl.gz", _self_instruct),
    _Source("code", "humaneval", "humaneval.jsonl.gz", _humaneval),
    _Source("reasoning", "gsm8k", "gsm8k_test.jsonl.gz", _gsm8k),
    _Source(
        "freeform", "mt_bench", "mt_bench_questions.jsonl", lambda row: (row["turns"][0], None)
    ),
    _Source(
        "long",
        "longchat_topics_5",
        "longchat_topics_5.jsonl.gz",
        lambda row: (row["prompt"], row["topics"][0]),
    ),
    _Source(
        "long",
        "longchat_lines_200",
        "longchat_lines_200.jsonl.gz",
        lambda row: (row["prompt"], str(row["expected_number"])),
    ),
    _Source("long", "kv_retrieval_75", "kv_retrieval_75.jsonl.gz", _key_value),
)
TASK_CLASSES = tuple(dict.fromkeys(source.task_class for source in SOURCES))

BUILTIN = tuple(
    Prompt(prompt_id=f"builtin/{i}", task_class=kind, source="builtin", text=text, answer=answer)
    for i, (kind, text, answer) in enumerate(BUILTIN_TEXTS)
)


def load_prompts(data_dir: Path | str, per_class: int, seed: int) -> list[Prompt]:
    """Choose ``per_class`` prompts of every class, without replacement, evenly over its sources.

    The choice depends on ``seed`` and the files alone; a class's prompts for a smaller
    ``per_class`` are the first of those for a larger one.
    """
    folder = Path(data_dir) / "prompts"
    if per_class < 1:
        raise PromptsError(f"per_class must be >= 1; got {per_class}")
    if seed < 0:
        raise PromptsError(f"seed must be >= 0; got {seed}")
    chosen = []
    for task_class in TASK_CLASSES:
        queues = [
            _shuffled(read_source(folder, source.name), [seed, number])
            for number, source in enumerate(SOURCES)
            if source.task_class == task_class
        ]
        mixed = _round_robin(queues)
        if len(mixed) < per_class:
            rule = f"per_class must be <= {len(mixed)} for class {task_class!r}"
            raise PromptsError(f"{rule}; got {per_class}")
        chosen += mixed[:per_class]
    return chosen


def read_source(folder: Path, name: str) -> list[Prompt]:
    """Read every prompt of one source, in file order; ``folder`` holds the prompt files."""
    source = next((s for s in SOURCES if s.name == name), None)
    if source is None:
        raise PromptsError(f"source must be one of {[s.name for s in SOURCES]}; got {name!r}")
    path = folder / source.file
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            return [
                _prompt(source, number, line, path)
                for number, line in enumerate(file)
                if line.strip()
            ]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PromptsError(f"{path}: cannot be read: {error}") from error


def check_answer(prompt: Prompt, text: str) -> bool | None:
    """Tell whether ``text`` answers ``prompt``; None where the prompt has no checkable answer.

    Numbers and identifiers: the last one stated counts, or the number after the last ``####``.
    Topics: the name must appear, case and a leading article aside.
    """
    if prompt.answer is None:
        return None
    if re.fullmatch(_UUID, prompt.answer):
        return _last(_UUID, text.lower()) == prompt.answer
    if re.fullmatch(_NUMBER, prompt.answer):
        head, mark, tail = text.rpartition("####")
        said = re.search(_NUMBER, tail) if mark else None
        found = said.group() if said else _last(_NUMBER, head + tail)
        return found is not None and _value(found) == _value(prompt.answer)
    return _topic(prompt.answer) in " ".join(text.lower().split())


_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _topic(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("the ")


def _prompt(source: _Source, number: int, line: str, path: Path) -> Prompt:
    try:
        text, answer = source.build(json.loads(line))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PromptsError(f"{path}:{number + 1}: not a {source.name} row: {error!r}") from error
    if not isinstance(text, str) or not text.strip():
        raise PromptsError(f"{path}:{number + 1}: prompt must not be empty; got {text!r}")
    return Prompt(
        prompt_id=f"{source.name}/{number}",
        task_class=source.task_class,
        source=source.name,
        text=text,
        answer=answer,
    )


def _shuffled(prompts: list[Prompt], seed: list[int]) -> list[Prompt]:
    order = np.random.default_rng(seed).permutation(len(prompts))
    return [prompts[i] for i in order]


def _round_robin(queues: list[list[Prompt]]) -> list[Prompt]:
    longest = max(len(queue) for queue in queues)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
