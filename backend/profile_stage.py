"""What a profile times: stages of an engine, and the steps it takes in them."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.core import require
from controllers.serving.messages import Plan, Result
from controllers.steplaw import chunk_squares


@dataclass(frozen=True, slots=True)
class Step:
    """What one timed step computed and read, in the step law's own features, and its seconds."""

    n_decode: int
    kv_tokens_read: float
    prompt_tokens: int
    prompt_squares: int
    kv_longest: float
    pages_scored: int
    seconds: float
    executed_s: float  # of these, in the executor

    @property
    def kind(self) -> str:
        """What it holds: "prefill", "mixed", "decode", or "sparse": decode that scores pages."""
        if self.prompt_tokens > 0:
            return "mixed" if self.n_decode > 0 else "prefill"
        return "sparse" if self.pages_scored > 0 else "decode"


@dataclass(frozen=True, slots=True)
class Stage:
    """Decode rows at about the given contexts, and the last chunk of a prompt among them.

    The step with the chunk is timed where there is one, else ``steps`` decode steps.
    """

    contexts: tuple[int, ...] = ()
    coverage: float = 1.0
    chunk: int = 0  # tokens of the prompt's last chunk; 0: no prompt
    start: int = 0  # tokens of that prompt before the chunk
    steps: int = 2  # few: a slow moment of the machine lasts longer than a step

    def __post_init__(self) -> None:
        require(bool(self.contexts) or self.chunk > 0, "a stage needs a row", chunk=self.chunk)
        require(
            self.start == 0 or self.start >= self.chunk,
            "start must be 0 or >= chunk: the prompt before it counts as one chunk",
            start=self.start,
            chunk=self.chunk,
        )

    @property
    def token_budget(self) -> int:
        """Tokens of a step, such that the chunk begins at ``start``."""
        if self.start:
            return len(self.contexts) + self.start
        return len(self.contexts) + max(self.chunk, sum(self.contexts))


def step_of(plan: Plan, result: Result, seconds: float) -> Step:
    """Return the features of a step that took ``seconds``, one-token rows told as the loop does."""
    decode = [row.start + 1 for row in plan.rows if row.samples and row.n_tokens == 1]
    chunks = [row for row in plan.rows if not (row.samples and row.n_tokens == 1)]
    kept = result.page_units_read / result.page_units_dense if result.page_units_dense else 1.0
    return Step(
        n_decode=len(decode),
        kv_tokens_read=kept * sum(decode),
        prompt_tokens=sum(row.n_tokens for row in chunks),
        prompt_squares=sum(chunk_squares(row.start, row.n_tokens) for row in chunks),
        kv_longest=kept * max(decode, default=0),
        pages_scored=result.pages_scored,
        seconds=seconds,
        executed_s=result.duration_ns / 1e9,
    )
