"""What the loop and an executor say to each other: plans out, results in.

``Plan`` never waits for the device: the temperature is decided inside the step and comes back as
``Result.commands``. Page masses and the pages a step skips never leave the executor; the pages it
gives up for good do (``Result.evicted``), for the loop owns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from controllers.core import TokenSignal, require


class Row(NamedTuple):
    """One sequence's share of a step; a tuple, for a step makes one per sequence."""

    request_id: int
    start: int  # tokens already in the cache: position of the first token of this row
    n_tokens: int  # tokens to compute now
    samples: bool  # whether the last token's logits are sampled
    coverage: float  # attention mass to keep, (0, 1]; 1 is dense
    probe: bool  # coverage was forced to 1 to measure
    evict: int = 0  # pages to give up after this row, which the executor picks
    keep_first: int = 0  # leading pages it must leave: pinned, or shared with others


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step does. ``preempted`` lists requests whose pages were just freed."""

    step: int
    rows: tuple[Row, ...]
    preempted: tuple[int, ...] = ()
    # request ids that sample a token this step, in row order; follows from ``rows``
    sampled: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = tuple([row.request_id for row in self.rows if row.samples])
        object.__setattr__(self, "sampled", ids)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of rows that are not one-token decode steps."""
        return sum([row.n_tokens for row in self.rows if row.n_tokens != 1 or not row.samples])


@dataclass(frozen=True, slots=True)
class Result:
    """What one step gave. Arrays have one lane per ``Plan.sampled`` entry, in that order."""

    step: int
    tokens: tuple[int, ...]  # sampled token ids; -1 where the row failed
    finished: dict[int, str]  # request id -> reason the executor knows: "stop", "nonfinite_logits"
    signals: TokenSignal  # what the laws saw, numpy float32 [S]
    commands: np.ndarray  # ln T applied, float32 [S]
    h_applied: np.ndarray  # entropy at the applied T, nats, float32 [S]; for the log only
    surprisal: np.ndarray  # -ln p at T = 1 of the token just sampled, float32 [S]
    page_units_read: int  # pages read, summed over decode rows, layers and KV heads
    page_units_dense: int  # what dense attention would have read
    duration_ns: int
    pages_scored: int = 0  # pages whose key moments a page score read; summed like page units
    shadow: np.ndarray | None = None  # commands of a shadowed law, float32 [S]
    # request id -> indices into its page table of the pages given up, at most ``Row.evict``
    evicted: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def check_result(plan: Plan, result: Result) -> None:
    """Raise ``ValueError`` unless ``result`` has the step and the lanes of ``plan``."""
    n_sampled = len(plan.sampled)
    if result.step == plan.step and len(result.tokens) == len(result.commands) == n_sampled:
        return
    require(result.step == plan.step, f"result must be of step {plan.step}", step=result.step)
    require(
        False,
        f"result must have {n_sampled} lanes, one per sampled row",
        tokens=len(result.tokens),
        commands=len(result.commands),
    )


class Executor(Protocol):
    """Whoever runs a plan: a live model or a recorded trace."""

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run one step; ``pages`` maps request id to its page table, holes included."""
        ...

    def release(self, request_id: int) -> None:
        """Forget a finished request."""
        ...
