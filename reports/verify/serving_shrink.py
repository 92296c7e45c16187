"""Small counterexamples: scripts without what is not needed, in plain operations and numbers.

Hypothesis would shrink its own choices; here the script itself is made small, so that what a
person reads is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reports.verify.property import Case
from reports.verify.serving_script import Operation, shortened

MOST_RUNS = 250
_COUNTED = 50  # numbers up to here are tried one by one
_SIMPLER = {"cancel_during_step": "step", "submit_greedy": "submit"}

Fails = Callable[[Case, list[Operation]], bool]


def shrink_script(
    setting: Case, operations: list[Operation], fails: Fails, plain: Case
) -> tuple[Case, list[Operation]]:
    """Return a setting and operations for which ``fails`` is still true, and few and simple.

    ``plain`` is the setting that a reader expects; each value that can be so becomes so.
    """
    left = MOST_RUNS

    def still(changed: Case, candidate: list[Operation]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(changed, candidate)

    before = None
    while before != (setting, operations) and left > 0:
        before = (setting, operations)
        while found := next((o for o in _fewer(operations) if still(setting, o)), None):
            operations = found
        for at in range(len(operations)):
            while found := next((o for o in _simpler(operations, at) if still(setting, o)), None):
                operations = found
        for name, value in plain.items():
            changed = {**setting, name: value}
            if changed != setting and still(changed, operations):
                setting = changed
    return setting, operations


def _fewer(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Yield scripts with a block left out, large blocks first, the end of the script first."""
    if len(shortened(operations)) < len(operations):
        yield shortened(operations)
    size = len(operations)
    while size >= 1:
        for start in range(len(operations) - size, -1, -1):
            yield operations[:start] + operations[start + size :]
        size //= 2


def _simpler(operations: list[Operation], at: int) -> Iterator[list[Operation]]:
    """Yield scripts whose operation ``at`` is plainer or has smaller numbers."""
    operation = operations[at]
    if operation.verb in _SIMPLER:
        verb = _SIMPLER[operation.verb]
        arguments = (1,) if verb == "step" else operation.arguments
        yield _with(operations, at, Operation(verb, arguments))
    for place, value in enumerate(operation.arguments):
        least = 1 if operation.verb.startswith(("submit", "step")) else 0
        near = value - 1 if value <= _COUNTED else int(float(f"{value:.0e}"))  # else: a round one
        for smaller in sorted({least, value // 2, near}):
            if least <= smaller < value:
                arguments = list(operation.arguments)
                arguments[place] = smaller
                yield _with(operations, at, Operation(operation.verb, tuple(arguments)))


def _with(operations: list[Operation], at: int, operation: Operation) -> list[Operation]:
    return [*operations[:at], operation, *operations[at + 1 :]]
