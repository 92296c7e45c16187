"""Closed-loop sessions: users who read an answer, think, and ask on with the whole conversation.

The number of users is constant. Each has one request open or thinks; the next one comes
``think_ns`` after the last one left, so a slow server is asked less, which open-loop arrivals never
do. Turn t's prompt is turn t-1's prompt, its answer and new text. When a conversation has had its
turns, or the next would not fit ``max_total``, its user begins another after a think time. Users
come one after the other over ``ramp_s``.

Prompt pages are named, so that a turn finds the pages of the turn before. Our engine shares prompt
pages only: an answer's pages are computed again with the next prompt, of which they are then a
part, and are found from the turn after that on. Prompts are fixed beforehand: a cancelled or failed
turn is followed as if it had been answered in full.

A run ends when every user has made its requests, so the load falls at the end: measure up to a
horizon, or cut the tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from simulator.arrival import NONE, ArrivalTable, Columns
from simulator.join import NEAREST, Recordings, predicted, stretched, templates
from simulator.workload import NS_PER_S, Asking, Workload, stream
from traces.lengths import Lognormal
from traces.prefixes import PageNames

if TYPE_CHECKING:
    from traces.store import Trace

USERS, JOIN = 4, 3  # streams of the seed; others: ``workload``, ``join``


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Who talks to the cluster, and how; equal values and seeds give equal conversations."""

    users: int
    requests_per_user: int
    turns: float = 5.0  # mean of a geometric number of turns; 1: every request stands alone
    think_s: float = 10.0  # mean
    think_cv: float = 1.0  # spread over mean; lognormal
    system_tokens: int = 0  # text that begins every conversation alike
    new_text: Lognormal = field(default_factory=lambda: Lognormal(mean=100.0, cv=1.0))
    answer: Lognormal = field(default_factory=lambda: Lognormal(mean=200.0, cv=1.0))
    max_total: int = 8192  # tokens of a conversation, the last answer included
    ramp_s: float = 10.0  # over which the users come

    def __post_init__(self) -> None:
        for name in ("users", "requests_per_user"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be >= 1", **{name: value})
        require(
            self.turns >= 1.0 and math.isfinite(self.turns), "turns must be >= 1", got=self.turns
        )
        for name in ("think_s", "think_cv", "ramp_s"):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value >= 0.0,
                f"{name} must be finite and >= 0",
                **{name: value},
            )
        require(self.system_tokens >= 0, "system_tokens must be >= 0", got=self.system_tokens)
        least = self.system_tokens + 2
        require(
            self.max_total >= least,
            f"max_total must leave room after the system text, >= {least}",
            max_total=self.max_total,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Every user's requests, int64 ``[users, requests_per_user]``."""

    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    conversation: np.ndarray  # number among all conversations


@dataclass(frozen=True, slots=True)
class Conversations:
    """Which prompts begin alike: all by the system text, those of a conversation by all they share.

    A conversation only grows, so its page p holds the same tokens in every prompt that fills it.
    """

    conversation: np.ndarray  # int64 [requests]
    system_tokens: int

    def __len__(self) -> int:
        return len(self.conversation)

    def page_names(self, row: int, prompt_tokens: int, page_tokens: int) -> PageNames:
        """Return one name per full prompt page."""
        pages = prompt_tokens // page_tokens
        alike = min(self.system_tokens // page_tokens, pages)
        owners = np.array([0, 1 + self.conversation[row]])
        return PageNames(owners, np.array([alike, pages]))


def draw_turns(
    sessions: Sessions, rng: np.random.Generator, max_tokens: int | None = None
) -> Turns:
    """Draw the conversations of every user; no answer is longer than ``max_tokens``."""
    shape = (sessions.users, sessions.requests_per_user)
    room = sessions.max_total - sessions.system_tokens
    texts = np.minimum(sessions.new_text.draw(math.prod(shape), rng).reshape(shape), room - 1)
    answers = np.minimum(sessions.answer.draw(math.prod(shape), rng).reshape(shape), room - texts)
    answers = answers if max_tokens is None else np.minimum(answers, max_tokens)
    goes_on = rng.random(shape) >= 1.0 / sessions.turns
    prompts, begun = np.empty(shape, np.int64), np.ones(shape, np.int64)
    prompts[:, 0] = sessions.system_tokens + texts[:, 0]
    for turn in range(1, shape[1]):
        longer = prompts[:, turn - 1] + answers[:, turn - 1] + texts[:, turn]
        same = goes_on[:, turn] & (longer + answers[:, turn] <= sessions.max_total)
        prompts[:, turn] = np.where(same, longer, sessions.system_tokens + texts[:, turn])
        begun[:, turn] = ~same
    conversation = (np.cumsum(begun.ravel()) - 1).reshape(shape)
    return Turns(prompt_tokens=prompts, output_tokens=answers, conversation=conversation)


def session_workload(
    trace: Trace, sessions: Sessions, *, seed: int, asking: Asking | None = None
) -> Workload:
    """Return the requests of ``sessions``, answered by recordings of ``trace`` as in ``join``.

    The client of a request is its user. Nobody gives up: ``asking.cancel_share`` must be 0.
    """
    asking = Asking() if asking is None else asking
    require(asking.cancel_share == 0.0, "users of a session stay", got=asking.cancel_share)
    rng, joining = stream(seed, USERS), stream(seed, JOIN)
    turns = draw_turns(sessions, rng, asking.max_tokens)
    starts_s = np.sort(rng.random(sessions.users)) * sessions.ramp_s
    row = np.arange(sessions.users * sessions.requests_per_user)  # every user's first, then second
    user, follows = row % sessions.users, row >= sessions.users
    prompts, outputs = turns.prompt_tokens.T.ravel(), turns.output_tokens.T.ravel()
    recordings = Recordings.of(trace, joining)
    chosen = recordings.near(prompts, joining.random(len(prompts)), NEAREST)
    classes = recordings.classes.picked(chosen)
    cap = int(outputs.max()) if asking.max_tokens is None else asking.max_tokens
    columns = Columns(
        arrival_ns=np.where(follows, 0, _ns(starts_s[user])),
        trace_index=recordings.index[chosen],
        prompt_tokens=prompts,
        output_tokens=outputs,
        max_tokens=np.minimum(cap, np.maximum(sessions.max_total - prompts, 1)),
        predicted_tokens=predicted(outputs, classes.codes),
        cancel_ns=np.broadcast_to(np.int64(NONE), len(prompts)),
        client=user,
        task_class=classes.codes,
        after=np.where(follows, row - sessions.users, NONE),
        think_ns=np.where(follows, _ns(_thinks_s(sessions, len(row), rng)), 0),
    )
    table = ArrivalTable(
        columns,
        templates=templates(trace, asking),
        clients=tuple(f"user {user}" for user in range(sessions.users)),
        classes=classes.names,
        prefixes=Conversations(turns.conversation.T.ravel(), sessions.system_tokens),
        page_tokens=int(trace.metadata["page_tokens"]),
    )
    caveats = stretched(recordings, chosen, prompts, np.minimum(outputs, columns.max_tokens))
    return Workload(
        arrivals=table,
        empty_recordings=len(trace.requests) - len(recordings.index),
        caveats=caveats | {"join_requests_cut": 0, "join_requests_of_class": 0},
    )


def _thinks_s(sessions: Sessions, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return lognormal think times of the mean and spread asked for, float64 ``[n]``."""
    if sessions.think_s == 0.0:
        return np.zeros(n)
    spread = math.sqrt(math.log1p(sessions.think_cv**2))
    return rng.lognormal(math.log(sessions.think_s) - spread**2 / 2.0, spread, n)


def _ns(seconds: np.ndarray) -> np.ndarray:
    return np.rint(seconds * NS_PER_S).astype(np.int64)
