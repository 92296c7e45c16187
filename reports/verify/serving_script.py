"""Scripts: what users do to a server, as one line of text that a person can read and edit.

``submit 5 8; step 2; cancel 0`` submits request 0 (5 prompt tokens, at most 8 more), runs two steps
and cancels it. Requests are numbered in the order of their submission. After the last operation
the server runs until nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from controllers.core import require

_ARGUMENTS = {  # verb -> number of integers after it
    "submit": 2,
    "submit_greedy": 2,
    "wait": 1,
    "step": 1,
    "cancel": 1,
    "cancel_during_step": 1,
    "disable": 1,
}
_STORY_LINES = 22  # of operations; the rest of the screen says what went wrong


class Operation(NamedTuple):
    """One thing done to a server, or to the page pool."""

    verb: str
    arguments: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join([self.verb, *map(str, self.arguments)])


def read_script(text: str, verbs: dict[str, int] = _ARGUMENTS) -> list[Operation]:
    """Return the operations of a script; ``ValueError`` names the first one that is none."""
    return [_read(part, verbs) for part in text.split(";") if part.strip()]


def write_script(operations: Iterable[Operation]) -> str:
    """Return operations as one line; :func:`read_script` reads it back."""
    return "; ".join(map(str, operations))


def shortened(operations: Iterable[Operation]) -> list[Operation]:
    """Return the same script with runs of ``step`` joined and empty operations left out."""
    short: list[Operation] = []
    for operation in operations:
        joins = operation.verb == "step" and short and short[-1].verb == "step"
        if joins:
            steps = short.pop().arguments[0] + operation.arguments[0]
            operation = Operation("step", (steps,))
        if operation not in (Operation("step", (0,)), Operation("wait", (0,))):
            short.append(operation)
    return short


def tell_script(operations: Iterable[Operation]) -> list[str]:
    """Return one line of plain words per operation."""
    lines: list[str] = []
    submitted = 0
    for operation in operations:
        lines.append(_tell(operation, submitted))
        submitted += operation.verb.startswith("submit")
    return lines


def cut(lines: list[str]) -> list[str]:
    """Return lines that fit a screen, the middle left out if there are too many."""
    if len(lines) <= _STORY_LINES:
        return lines
    half = _STORY_LINES // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more ...", *lines[-half:]]


def _read(part: str, verbs: dict[str, int]) -> Operation:
    verb, *rest = part.split()
    known = verb in verbs and len(rest) == verbs[verb] and all(word.isdigit() for word in rest)
    rules = ", ".join(f"{name} ({count})" for name, count in verbs.items())
    require(known, f"an operation is one of, with so many integers: {rules}", operation=part)
    return Operation(verb, tuple(map(int, rest)))


def _tell(operation: Operation, submitted: int) -> str:
    first, *rest = operation.arguments
    match operation.verb:
        case "submit" | "submit_greedy":
            greedy = ", greedy" if operation.verb == "submit_greedy" else ""
            return f"submit request {submitted}: prompt {first}, at most {rest[0]} tokens{greedy}"
        case "wait":
            return f"wait {first} ms"
        case "step":
            return "run one step" if first == 1 else f"run {first} steps"
        case "cancel_during_step":
            return f"run one step and cancel request {first} while it runs"
        case _:
            return f"{operation.verb} request {first}"
