"""What a user asks of a request, and what comes back: parameters, deltas, outputs."""

from __future__ import annotations

from dataclasses import dataclass

from backend.arguments import flag, integer, listed, number, text
from backend.stops import check_stops
from controllers.core import require
from controllers.serving.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to generate one reply; every field is honoured by the live engine.

    Truncations (top-k, top-p, ...) belong to the engine's preset and are the same for all.
    """

    temperature: float = 1.0  # the user's T; 0 is greedy
    max_tokens: int = 128
    seed: int = 0  # of several prompts with these parameters, the i-th gets seed + i
    stop: tuple[str, ...] = ()  # text that ends the reply and is not part of it
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own stop tokens
    ignore_stop: bool = False  # go on past the model's own stop tokens
    target_nats: float = 1.0  # entropy set-point H* of the temperature law
    one_sided: bool = False  # never raise T above the user's
    enabled: bool = True  # False: baseline control, the user's T and dense attention
    min_coverage: float = 0.0  # attention mass to keep whatever the law says; 1 is dense

    def __post_init__(self) -> None:
        for name in ("max_tokens", "seed"):
            self._set(name, integer(name, getattr(self, name)))
        for name in ("temperature", "target_nats", "min_coverage"):
            self._set(name, number(name, getattr(self, name)))
        for name in ("ignore_stop", "one_sided", "enabled"):
            flag(name, getattr(self, name))
        self.request(0, 1)  # it checks what it takes over
        self._set("stop", listed("stop", self.stop))
        check_stops(self.stop)
        for stop in self.stop:
            text("stop", stop)
        ids = listed("stop_token_ids", self.stop_token_ids)
        self._set("stop_token_ids", tuple(integer("stop_token_id", each) for each in ids))
        for token in self.stop_token_ids:
            require(token >= 0, "stop_token_ids must be integers >= 0", stop_token_id=token)

    def _set(self, name: str, value: object) -> None:
        """Put a plain Python value in place of an equal one of another type, numpy's say."""
        object.__setattr__(self, name, value)

    def request(self, request_id: int, prompt_tokens: int) -> Request:
        """Return the request of a prompt with these parameters."""
        return Request(
            request_id=request_id,
            prompt_tokens=prompt_tokens,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            target_nats=self.target_nats,
            seed=self.seed,
            enabled=self.enabled,
            one_sided=self.one_sided,
            min_coverage=self.min_coverage,
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """One token of a stream. ``text`` may be empty: half a character, or the start of a stop."""

    text: str
    token_id: int
    entropy_nats: float  # of the distribution the token was drawn from, before truncations
    temperature: float  # 1 for greedy requests, whose entropy is read there
    coverage: float  # attention mass asked for; 1 is dense
    surprisal_nats: float  # of the token, at T = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What was measured on one request; None where nothing was. Means are over its tokens."""

    ttft_s: float | None = None  # from the call to the first token
    tpot_s: float | None = None  # per token after the first
    e2e_s: float | None = None
    entropy_nats: float | None = None
    temperature: float | None = None
    coverage: float | None = None
    nll_nats: float | None = None
    shadow_temperature: float | None = None  # what the shadowed preset would have set
    shadow_coverage: float | None = None
    prompt_nll_nats: float | None = None  # per prompt token scored, where the engine scores them
    prefix_hit_tokens: int = 0  # prompt tokens found in the prefix cache
    preemptions: int = 0
    pages_evicted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A finished reply. ``token_ids`` holds the stop token, ``text`` never holds the stop."""

    request_id: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str  # stop, length, cancelled, abandoned, nonfinite_logits or engine_fault
    stop_reason: str | int | None  # the stop string or token, if that ended it
    prompt_tokens: int
    metrics: Metrics
