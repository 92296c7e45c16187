"""A law under test, with the signals it reads and the range its commands must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from controllers.compose import Chain, Gated, Shadow
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
        one_step(law, token_signals(1, 2)[0])
    except Exception as error:
        try:
            one_step(law, load_signals(1, 2)[0])
        except Exception as second:
            raise _telling(error, second) from error
        return "priority"
    return "temperature" if sets_temperature(law) else "coverage"


def sets_temperature(law: Any) -> bool:
    """Tell whether ``law`` has ``x_in``; of our wrappers, which all have it, whether the inner has.

    The role of a shadow is that of the law it applies.
    """
    match law:
        case Gated(law=inner) | Chain(law=inner) | Shadow(applied=inner):
            return sets_temperature(inner)
    return isinstance(law, TemperatureLaw)


def one_step(law: Any, signal: TokenSignal | LoadSignal) -> None:
    """Start the law and step it once, to see whether it raises."""
    with np.errstate(all="ignore"):
        law.update(law.init(signal), signal)


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
