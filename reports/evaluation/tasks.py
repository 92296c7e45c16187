"""Every task by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from reports.evaluation.example import Example, Request
from reports.evaluation.needle import multi_needle, needle
from reports.evaluation.open_ended import book
from reports.evaluation.records import key_value, lines
from reports.evaluation.short import gsm8k, ifeval
from reports.evaluation.talks import qmsum, topics

Task = Callable[[Request], list[Example]]
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "needle": needle,
        "multi_needle": multi_needle,
        "kv": key_value,
        "lines": lines,
        "topics": topics,
        "qmsum": qmsum,
        "book": book,
        "gsm8k": gsm8k,
        "ifeval": ifeval,
    }
)
LONG_TASKS = tuple(name for name in TASKS if name not in ("gsm8k", "ifeval"))


def parse_tasks(text: str) -> tuple[str, ...]:
    """Return the task names in a comma-separated list; raise ``ValueError`` for an unknown one."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        got = unknown[0] if unknown else text
        raise ValueError(f"tasks must be among {', '.join(TASKS)}; got {got!r}")
    return names


def build(names: Sequence[str], request: Request) -> list[Example]:
    """Return the examples of each task, ``request.n`` of each, task by task."""
    return [example for name in names for example in TASKS[name](request)]
