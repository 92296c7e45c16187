"""A law under test, with the signals it reads and the range its commands must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from controllers.core import Law, LoadSignal, TemperatureLaw, TokenSignal
from controllers.ops import Array
from reports.verify.contract.signals import load_signals, token_signals

Role = Literal["temperature", "coverage", "priority"]
Signals = Callable[..., list]
Bounds = Callable[[TokenSignal | LoadSignal], tuple[Array, Array]]

FARTHEST = 25.0  # largest |ln T| of any law: beyond it no sampler tells T from 0 or infinity
ROLES: tuple[Role, ...] = ("temperature", "coverage", "priority")


class Subject(NamedTuple):
    """A law, ``signals(steps, lanes, seed)``, and ``bounds(signal)``: lowest, highest command."""

    law: Law
    signals: Signals
    bounds: Bounds


def subject_of(law: Any, role: Role) -> Subject:
    """Return a foreign law as a subject: all that its role promises is asked of it, no more."""
    match role:
        case "temperature":
            return Subject(law, token_signals, _temperature)
        case "coverage":
            return Subject(law, token_signals, _coverage)
        case "priority":
            return Subject(law, load_signals, _finite)


def role_of(law: Any) -> Role:
    """Infer the role of a law from the signals it can read and from ``x_in``.

    Raises what the law raised when it can read neither kind of signal.
    """
    try:
        state = one_step(law, token_signals(1, 2)[0])
    except Exception as error:
        try:
            one_step(law, load_signals(1, 2)[0])
        except Exception as second:
            raise _telling(error, second) from error
        return "priority"
    return "temperature" if _has_x_in(law, state) else "coverage"


def one_step(law: Any, signal: TokenSignal | LoadSignal) -> Any:
    """Start the law, step it once, and return its state."""
    with np.errstate(all="ignore"):
        state, _ = law.update(law.init(signal), signal)
    return state


def _has_x_in(law: Any, state: Any) -> bool:
    if not isinstance(law, TemperatureLaw):
        return False
    try:
        law.x_in(state)
    except AttributeError:
        # A wrapper always has the method; it fails where the wrapped law has none.
        return False
    return True


def _telling(first: Exception, second: Exception) -> Exception:
    """Return the error that is not merely about a field of the other kind of signal."""
    other = isinstance(first, AttributeError) and "'TokenSignal'" in str(first)
    also = isinstance(second, AttributeError) and "'LoadSignal'" in str(second)
    return second if other and not also else first


def _temperature(signal: Any) -> tuple[Array, Array]:
    far = np.full_like(signal.x_user, FARTHEST)
    return -far, np.fmin(far, signal.x_cap)


def _coverage(signal: Any) -> tuple[Array, Array]:
    one = np.ones_like(signal.h_cal)
    return one * np.finfo(np.float32).tiny, one


def _finite(signal: Any) -> tuple[Array, Array]:
    most = np.full_like(signal.age_s, np.finfo(np.float32).max)
    return -most, most
