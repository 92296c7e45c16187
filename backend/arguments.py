"""What callers hand over, checked by type: one-line errors that name field and value."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any

from controllers.core import require


def short(value: object) -> str:
    """Return a value for an error: one line, and not long."""
    return " ".join(reprlib.repr(value).split())


def integer(name: str, value: Any) -> int:
    """Return an integer of any kind, numpy's too, as an ``int``; no bool is one."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer; got {name}={short(value)}")
    return operator.index(value)


def number(name: str, value: Any) -> float:
    """Return a finite number of any kind, numpy's too, as a ``float``; no bool is one."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number; got {name}={short(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    require(math.isfinite(found), f"{name} must be a finite number", **{name: found})
    return found


def flag(name: str, value: Any) -> None:
    """Refuse anything but True and False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {name}={short(value)}")


def integers(**values: Any) -> None:
    """Refuse what is no integer."""
    for name, value in values.items():
        integer(name, value)


def flags(**values: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, value in values.items():
        flag(name, value)


def listed(name: str, value: Any) -> tuple[Any, ...]:
    """Return a sequence as a tuple; text is none."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Sequence):
        raise ValueError(f"{name} must be a sequence; got {name}={short(value)}")
    return tuple(value)


def text(name: str, value: Any) -> str:
    """Return text that can be written as UTF-8; lone surrogates cannot."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text; got {short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        wrong = value[error.start]
        raise ValueError(
            f"{name} must be valid UTF-8; got {wrong!r} at character {error.start}"
        ) from None
    return value


def token_ids(prompt: Any) -> tuple[int, ...]:
    """Return the token ids of a prompt: a sequence or an iterator of integers.

    Values are not compared with a vocabulary. Arrays must come as lists.
    """
    strange = isinstance(prompt, str | bytes | bytearray | memoryview)
    if strange or not isinstance(prompt, Sequence | Iterator):
        raise ValueError(f"a prompt must be text or a sequence of token ids; got {short(prompt)}")
    return tuple(_token(each) for each in prompt)


def _token(value: Any) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return operator.index(value)
    raise ValueError(f"prompt tokens must be integers; got {short(value)}")
