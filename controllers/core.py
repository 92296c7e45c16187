"""What a law is: signals in, commands out, state as data.

A law is a frozen dataclass of gains with two pure methods over batched float32 lanes. Temperature
laws also say where they want the entropy of the current logits measured (``x_in``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from controllers import ops
from controllers.ops import Array

State = Any  # a NamedTuple or tuple of [B] arrays, nested; data only


class TokenSignal(NamedTuple):
    """Per-sequence signals of one sampling step, float32 ``[B]``; entropies in nats.

    Nothing here depends on load or duration, so a sequence's temperature and coverage trajectory
    does not depend on when it was served.
    """

    h_cal: Array  # entropy of the current logits at the calibration temperature
    v_cal: Array  # varentropy there, nats^2
    h_in: Array  # entropy of the current logits at the law's own x_in
    v_in: Array  # varentropy there, nats^2
    surprisal: Array  # -ln p at T = 1 of the token sampled one step ago; 0 before the first
    target_nats: Array  # set-point H*
    x_user: Array  # the user's ln T
    x_cap: Array  # highest ln T allowed for this request (one-sided option)
    enabled: Array  # 1 where control is on; 0 for greedy, pinned and switched-off requests
    position: Array  # tokens generated so far


class LoadSignal(NamedTuple):
    """Per-request signals for the macro law, float32 ``[B]``; times relative, seconds."""

    age_s: Array  # since arrival
    wait_s: Array  # since the last full quantum of service, or arrival
    slack_s: Array  # deadline for the first token minus age; negative when late
    cost_s: Array  # modelled seconds to give this request its next quantum
    pages_held: Array  # KV pages held now
    pages_needed: Array  # KV pages still needed to be resident
    collapse_nats: Array  # sensor: shrunk mean of max(0, H_{t-1} - H_t) at T_cal
    completion: Array  # generated / max_tokens, in [0, 1]; never the true output length
    wait_steps: Array  # plans since the last full quantum of service, or arrival
    served_s: Array  # modelled seconds of its rows so far, each as a step of its own
    prefill_s: Array  # modelled seconds to prefill what is pending, as one step of its own
    token_s: Array  # modelled seconds of its next output token, at its share of a full batch
    user_priority: Array  # Request.priority; smaller goes first (vLLM's convention)
    predicted_tokens: Array  # predicted output tokens still to come, >= 1
    client_service: Array  # weighted tokens of its client above the least served active client's
    oracle_tokens: Array  # true output tokens still to come; NaN unless the loop has an oracle


@runtime_checkable
class Law(Protocol):
    """A pure, lane-wise control law."""

    def init(self, signal: Any) -> State:
        """Return the state of fresh lanes shaped like ``signal``."""
        ...

    def update(self, state: State, signal: Any) -> tuple[State, Array]:
        """Return the next state and the command, both ``[B]``; never mutate the inputs."""
        ...


@runtime_checkable
class TemperatureLaw(Law, Protocol):
    """A law whose command is ln T, float32 ``[B]``."""

    def x_in(self, state: State) -> Array:
        """Return the ln T at which ``h_in`` and ``v_in`` must be measured next."""
        ...


def tree_map(function: Callable[..., Array], tree: State, *rest: State) -> State:
    """Apply ``function`` leaf by leaf to states of the same structure."""
    if not isinstance(tree, tuple):
        return function(tree, *rest)
    leaves = [tree_map(function, *parts) for parts in zip(tree, *rest, strict=True)]
    return type(tree)(*leaves) if hasattr(tree, "_fields") else tuple(leaves)


def take_lanes(state: State, index: Array) -> State:
    """Gather the lanes ``index`` (integer ``[b]``) of a state."""
    return tree_map(lambda leaf: ops.take(leaf, index), state)


def put_lanes(state: State, index: Array, lanes: State) -> State:
    """Return ``state`` with the lanes ``index`` replaced by ``lanes``."""
    return tree_map(lambda leaf, new: ops.put(leaf, index, new), state, lanes)


def replay(law: Law, signals: Iterable[Any]) -> Array:
    """Run ``law`` over a sequence of signals and return its commands, ``[steps, B]``."""
    state, commands = None, []
    for signal in signals:
        state = law.init(signal) if state is None else state
        state, command = law.update(state, signal)
        commands.append(command)
    return ops.stack(commands)


def fingerprint(law: Any) -> str:
    """Name a law and its gains by 16 hex digits; equal laws have equal fingerprints."""
    text = json.dumps(describe(law), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(value: Any) -> Any:
    """Describe a law as JSON: its class, its gains, and the laws it wraps."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"law": type(value).__qualname__, **fields}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def require(condition: bool, rule: str, **values: Any) -> None:  # noqa: FBT001 - reads as an assertion
    """Raise ``ValueError`` naming the broken rule and the offending values."""
    if not condition:
        got = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(f"{rule}; got {got}")
