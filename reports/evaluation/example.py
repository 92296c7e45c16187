"""What a task produces: a prompt, the answer that can be checked, and how to check it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controllers.core import require
from reports.evaluation.scores import METRICS

CountTokens = Callable[[str], int]  # tokens of a user turn in the model's chat format
CLUSTER = "document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question to a model.

    ``answer`` is what the metric compares with; ``reply`` is a full correct reply, used where the
    model is forced along it; empty where there is none. ``details`` holds what a metric needs
    besides.
    """

    task: str
    document: str  # examples of one document are not independent: intervals treat them as one
    prompt: str
    answer: tuple[str, ...]
    reply: str
    metric: str
    max_tokens: int
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.prompt.strip()), "prompt must not be empty", prompt=self.prompt)
        require(self.metric in METRICS, f"metric must be one of {list(METRICS)}", got=self.metric)
        require(self.max_tokens >= 1, "max_tokens must be >= 1", max_tokens=self.max_tokens)

    @property
    def key(self) -> str:
        """The first 16 hex digits of the SHA-256 of everything in it."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def score(self, text: str) -> float:
        """Return how well ``text`` answers, in [0, 1]."""
        return METRICS[self.metric](text, self.answer, self.details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a task is asked for: ``n`` examples of at most ``context`` tokens, all from ``seed``.

    ``prompts`` is the folder of public prompt files, or None.
    """

    n: int
    seed: int
    context: int
    count: CountTokens
    prompts: Path | None

    def __post_init__(self) -> None:
        require(self.n >= 1, "n must be >= 1", n=self.n)
        require(self.seed >= 0, "seed must be >= 0", seed=self.seed)
        require(self.context >= LEAST_CONTEXT, f"context must be >= {LEAST_CONTEXT}",
                context=self.context)  # fmt: skip


LEAST_CONTEXT = 64


def largest(build: Callable[[int], str], most: int, limit: int, count: CountTokens) -> int:
    """Return the largest k in [1, most] whose ``build(k)`` has at most ``limit`` tokens.

    ``build`` must not get shorter as k grows. Raises ``ValueError`` when not even k = 1 fits.
    """
    require(most >= 1, "there must be something to fill the context with", pieces=most)
    needed = count(build(1))
    require(needed <= limit, f"context must be >= {needed} tokens for this task", context=limit)
    low, high = 1, most
    # A first guess by proportion saves tokenising the longest text.
    guess = min(most, max(1, 2 * limit // max(needed, 1)))
    if guess < most and count(build(guess)) > limit:
        high = guess - 1
    while low < high:
        middle = (low + high + 1) // 2
        if count(build(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return max(low, 1)
