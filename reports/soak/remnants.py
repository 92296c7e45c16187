"""What an engine still holds of requests that ended, found by walking its objects."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Container
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from backend.engine import Engine

FIRST_ID = 10**9  # ids from here up are no token, count or page: an integer found is an id
_OPAQUE = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    nn.Module,
    Tensor,
    str,
    bytes,
)


def remnants(engine: Engine, finished: Container[int]) -> list[str]:
    """Return where ids of ``finished`` requests, all >= ``FIRST_ID``, are still referenced.

    The ledger and ``done`` are left out: to remember requests is what they are for.
    """
    roots: list[Any] = [engine.loop, engine.executor]
    seen = {id(part) for part in (engine, engine.ledger, engine.done, *roots)}
    queue = deque((part, type(part).__name__) for part in roots)
    found: list[str] = []
    while queue:
        part, path = queue.popleft()
        for child in gc.get_referents(part):
            if isinstance(child, int):
                if child >= FIRST_ID and child in finished:
                    found.append(f"{path}: request {child}")
            elif id(child) not in seen and not isinstance(child, _OPAQUE):
                seen.add(id(child))
                queue.append((child, f"{path} > {type(child).__name__}"))
    return found
