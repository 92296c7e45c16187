"""Which signals a law looks at, found by running it once.

Laws are branch-free, so what ``update`` reads on one step it reads on every step, and what no law
reads need not be measured.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from controllers.core import Law, TokenSignal

EVERYTHING = frozenset(TokenSignal._fields)
FIXED = frozenset({"target_nats", "x_user", "x_cap", "enabled"})  # by the request, for good


class _Watched:
    """Stands in for a ``TokenSignal`` and notes the names that are asked for."""

    def __init__(self, signal: TokenSignal) -> None:
        self._signal = signal
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.update((name,) if name in EVERYTHING else EVERYTHING)
        return getattr(self._signal, name)

    def __getitem__(self, index: Any) -> Any:
        self.read |= EVERYTHING
        return self._signal[index]

    def __iter__(self) -> Any:
        self.read |= EVERYTHING
        return iter(self._signal)


def fields_read(law: Law) -> frozenset[str]:
    """Return the fields of ``TokenSignal`` that ``law.update`` looks at; all if it cannot tell."""
    signal = TokenSignal(*(np.ones(1, np.float32) for _ in TokenSignal._fields))
    watched = _Watched(signal)
    try:
        law.update(law.init(signal), cast("TokenSignal", watched))
    except Exception:  # a law may do with its signal what a stand-in cannot
        return EVERYTHING
    return frozenset(watched.read)
