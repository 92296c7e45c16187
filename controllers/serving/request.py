"""One request: what the user asked for, and the one state machine both worlds run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from numbers import Integral

from controllers.core import require

SEEDS = 2**64  # they key a counter-based generator of that many streams
MAX_PRIORITY = 2**24  # beyond it float32 merges neighbours


class Status(StrEnum):
    """Where a request is; the arrows are in ``TRANSITIONS``."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


TRANSITIONS = {
    (Status.WAITING, Status.RUNNING),  # admitted
    (Status.RUNNING, Status.WAITING),  # preempted: pages freed, KV recomputed later
    (Status.RUNNING, Status.FINISHED),
    (Status.WAITING, Status.FINISHED),  # cancelled or failed while waiting
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asked for. Lengths in tokens; the true output length is never in it."""

    request_id: int
    prompt_tokens: int
    max_tokens: int
    temperature: float = 1.0  # the user's T; 0 means greedy
    target_nats: float = 1.0  # entropy set-point H*
    seed: int = 0
    enabled: bool = True  # False returns the request to baseline control
    one_sided: bool = False  # True: never raise T above the user's
    min_coverage: float = 0.0  # attention mass to keep whatever the law says; 1 is dense
    first_token_slo_s: float = 10.0  # deadline for the first token, for slack
    task_class: str = "unknown"
    priority: int = 0  # the user's rank; smaller goes first, as in vLLM
    predicted_tokens: int | None = None  # somebody's guess of the output length, never the truth
    client: str = ""  # whose request it is, for fairness between clients

    def __post_init__(self) -> None:
        require(
            self.prompt_tokens >= 1, "prompt_tokens must be >= 1", prompt_tokens=self.prompt_tokens
        )
        require(self.max_tokens >= 1, "max_tokens must be >= 1", max_tokens=self.max_tokens)
        require(
            math.isfinite(self.temperature) and self.temperature >= 0.0,
            "temperature must be finite and >= 0",
            temperature=self.temperature,
        )
        require(
            math.isfinite(self.target_nats) and self.target_nats >= 0.0,
            "target_nats must be finite and >= 0",
            target_nats=self.target_nats,
        )
        require(
            0.0 <= self.min_coverage <= 1.0,
            "min_coverage must lie in [0, 1]",
            min_coverage=self.min_coverage,
        )
        require(
            isinstance(self.seed, Integral)
            and not isinstance(self.seed, bool)
            and 0 <= self.seed < SEEDS,
            "seed must be an integer in [0, 2^64)",
            seed=self.seed,
        )
        require(
            abs(self.priority) <= MAX_PRIORITY,
            f"priority must lie within +-{MAX_PRIORITY}",
            priority=self.priority,
        )
        require(
            self.predicted_tokens is None or self.predicted_tokens >= 1,
            "predicted_tokens must be >= 1 or None",
            predicted_tokens=self.predicted_tokens,
        )

    @property
    def greedy(self) -> bool:
        """Whether the request decodes by argmax."""
        return self.temperature == 0.0

    @property
    def x_user(self) -> float:
        """The user's ln T; 0 for greedy requests, whose temperature is not used."""
        return 0.0 if self.greedy else math.log(self.temperature)


@dataclass(slots=True)
class Sequence:
    """The mutable life of a request inside the loop; only the scheduler and the loop write it."""

    request: Request
    arrival_ns: int
    status: Status = Status.WAITING
    computed: int = 0  # tokens whose KV is in the pool
    generated: int = 0  # tokens sampled so far
    pages: list[int] = field(default_factory=list)  # by position; HOLE where evicted
    holes: int = 0  # evicted entries of ``pages``
    page_hashes: tuple[int, ...] = ()  # of its full prompt pages; empty: nothing is shared
    published: int = 0  # leading pages found at admission or published since
    found: int = 0  # tokens found in shared pages at the admission of this plan
    wait_since_ns: int = 0  # start of the current wait: arrival, or the end of a full quantum
    wait_since_step: int = 0  # the same moment, in plans
    quantum_used: int = 0  # tokens served since admission
    served_s: float = 0.0  # modelled seconds of its rows so far, each as a step of its own
    charged: bool = False  # whether its client has paid for the prompt (ServiceCounters)
    preemptions: int = 0
    finish_reason: str | None = None

    @property
    def known(self) -> int:
        """Prompt plus generated tokens."""
        return self.request.prompt_tokens + self.generated

    @property
    def pending(self) -> int:
        """Known tokens whose KV is still to be computed; 1 in steady decode."""
        return self.known - self.computed

    @property
    def held(self) -> int:
        """Pages of the pool it has: those of its table that were not evicted."""
        return len(self.pages) - self.holes

    @property
    def decoding(self) -> bool:
        """Whether the next row is a one-token decode step."""
        # Asked several times per row and step, hence not through ``pending`` and ``known``.
        return self.generated > 0 and (
            self.request.prompt_tokens + self.generated - self.computed == 1
        )

    @property
    def predicted_left(self) -> int:
        """Predicted output tokens still to come, >= 1; without a prediction the cap stands in."""
        guess = self.request.predicted_tokens
        return max(1, (self.request.max_tokens if guess is None else guess) - self.generated)

    def restart_wait(self, now_ns: int, step: int) -> None:
        """Count the wait from now: a full quantum has been served."""
        self.wait_since_ns = now_ns
        self.wait_since_step = step

    def move(self, status: Status) -> None:
        """Change status along an allowed arrow."""
        if (self.status, status) not in TRANSITIONS:
            raise RuntimeError(f"request {self.request.request_id}: {self.status} -> {status}")
        self.status = status
