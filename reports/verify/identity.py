"""Who a subject is: a name, its gains as JSON, a fingerprint; also for laws that are no dataclass.

A law of ours has the fingerprint that ``controllers.core`` gives it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from controllers.compose import Chain, Gated, Shadow
from controllers.core import describe
from controllers.presets import Preset
from reports.verify.serving_subject import ServingSubject


def label(law: Any) -> str:
    """Return the class of a law with what it wraps, or a preset's name."""
    if isinstance(law, Preset | ServingSubject):
        return law.name
    if isinstance(law, Gated | Chain):
        return f"{type(law).__name__}({label(law.law)})"
    if isinstance(law, Shadow):
        return f"Shadow({label(law.observed)})"
    return type(law).__name__


def describe_subject(law: Any) -> Any:
    """Return classes and gains as JSON values."""
    return json.loads(_text(law))


def fingerprint_of(law: Any) -> str:
    """Return 16 hex digits of the class and the gains."""
    return hashlib.sha256(_text(law).encode()).hexdigest()[:16]


def _text(law: Any) -> str:
    return json.dumps(describe(law), sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if callable(value) or not isinstance(getattr(value, "__dict__", None), dict):
        return type(value).__qualname__
    fields = {name: describe(field) for name, field in sorted(vars(value).items())}
    return {"law": type(value).__qualname__, **fields}
