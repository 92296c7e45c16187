"""Tasks of short context: school mathematics (GSM8K) and instructions that code can check (IFEval).

Contexts this short are served dense, so they show what sampling control costs, not pruning.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reports.evaluation.example import Example, Request
from reports.evaluation.files import chosen, read_rows
from reports.evaluation.ifeval import CHECKS

GSM8K_FILE, IFEVAL_FILE = "gsm8k_test.jsonl.gz", "ifeval.jsonl.gz"
HINT = 'Work it out step by step, then write "####" and the final number on the last line.'


def gsm8k(request: Request) -> list[Example]:
    """Return examples of GSM8K's test set (arXiv 2110.14168), or made-up sums without the file."""
    rng = np.random.default_rng([request.seed, 5])
    if request.prompts is None:
        return [_made_up_sum(rng, i) for i in range(request.n)]
    rows = chosen(read_rows(request.prompts / GSM8K_FILE), request.n, rng, "gsm8k")
    return [
        _sum(f"gsm8k/{number}", row["question"], row["answer"], _final(row["answer"]))
        for number, row in rows
    ]


def ifeval(request: Request) -> list[Example]:
    """Return IFEval prompts (arXiv 2311.07911) all of whose instructions we check.

    Without the file, a few prompts of our own.
    """
    rng = np.random.default_rng([request.seed, 6])
    if request.prompts is None:
        rows: list[tuple[int, Any]] = list(enumerate(_OWN))[: request.n]
        if request.n > len(_OWN):
            raise ValueError(f"n must be <= {len(_OWN)} for task 'ifeval'; got n={request.n}")
        return [_instructions(f"own/{i}", *row) for i, row in rows]
    covered = [
        row
        for row in read_rows(request.prompts / IFEVAL_FILE)
        if all(name in CHECKS for name in row["instruction_id_list"])
    ]
    return [
        _instructions(f"ifeval/{row['key']}", row["prompt"], _pairs(row))
        for _, row in chosen(covered, request.n, rng, "ifeval")
    ]


def coverage_of_ifeval(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Count the instructions of IFEval rows, those we check, and prompts checked in full."""
    names = [name for row in rows for name in row["instruction_id_list"]]
    whole = [all(name in CHECKS for name in row["instruction_id_list"]) for row in rows]
    return {
        "kinds": len(set(names)),
        "kinds_checked": len(set(names) & set(CHECKS)),
        "instructions": len(names),
        "instructions_checked": sum(name in CHECKS for name in names),
        "prompts": len(rows),
        "prompts_checked": sum(whole),
    }


def _pairs(row: dict[str, Any]) -> list[list[Any]]:
    """Return ``[name, arguments]`` of each instruction, without the arguments that are null."""
    return [
        [name, {key: value for key, value in given.items() if value is not None}]
        for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True)
    ]


def _final(answer: str) -> str:
    return answer.rpartition("####")[2].strip()


def _sum(document: str, question: str, worked: str, answer: str) -> Example:
    return Example(
        task="gsm8k",
        document=document,
        prompt=f"{question}\n\n{HINT}",
        answer=(answer,),
        reply=worked,
        metric="exact",
        max_tokens=256,
    )


def _instructions(document: str, prompt: str, asked: list[list[Any]]) -> Example:
    return Example(
        task="ifeval",
        document=document,
        prompt=prompt,
        answer=(),
        reply="",
        metric="instructions",
        max_tokens=256,
        details={"instructions": asked},
    )


def _made_up_sum(rng: np.random.Generator, index: int) -> Example:
    crates, each, lost = (int(v) for v in rng.integers(2, 30, 3))
    lost = min(lost, crates * each)
    question = (
        f"A shop gets {crates} crates with {each} apples each, and {lost} apples are bruised. "
        "How many good apples does it have?"
    )
    total = crates * each
    worked = f"{crates} * {each} = {total} apples. {total} - {lost} = {total - lost}.\n"
    return _sum(f"made_up/{index}", question, f"{worked}#### {total - lost}", str(total - lost))


_OWN: tuple[tuple[str, list[list[Any]]], ...] = (
    (
        "Describe a lighthouse in at least 40 words. Do not use any commas.",
        [
            ["length_constraints:number_words", {"relation": "at least", "num_words": 40}],
            ["punctuation:no_comma", {}],
        ],
    ),
    (
        "List exactly 3 kinds of bread as markdown bullet points, each starting with *.",
        [["detectable_format:number_bullet_lists", {"num_bullets": 3}]],
    ),
    (
        "Write about the sea in lower case only, no capital letters. Use the word tide twice.",
        [
            ["change_case:english_lowercase", {}],
            ["keywords:frequency", {"keyword": "tide", "frequency": 2, "relation": "at least"}],
        ],
    ),
    (
        "Give a title for a story about a fox, wrapped in double angle brackets like <<title>>.",
        [["detectable_format:title", {}]],
    ),
)
