"""What a live validation asks of the engine: a window of a real arrival trace, and real text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from controllers.core import require
from controllers.preset import Preset
from controllers.presets import get_preset
from controllers.serving.request import Request
from traces.arrivals import Arrivals, picked, rescaled

OVERLOAD = 1.0  # loads above it are judged by how fast the queue grows
CLOSED = 0.0  # the load of a run whose requests are all there at once
TOP = 99.0  # percentile of the trace's prompts that becomes the longest of ours
SEEDS_APART = 1_000_003  # of two streams of sampling noise


class LiveError(ValueError):
    """A live validation that cannot be made or trusted. One line: what, the rule, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """What is served, how often, and at what share of capacity."""

    loads: tuple[float, ...] = (0.5, 0.8, 1.1)  # shares of capacity
    presets: tuple[str, ...] = ("baseline", "attention", "full")
    requests: int = 48  # of a run below capacity
    overload_requests: int = 400  # of a run above it, which only baseline serves
    repeats: int = 5
    overload_repeats: int = 3
    seed: int = 0
    prompt_tokens: tuple[int, int] = (64, 1024)  # shortest and longest
    overload_prompt_tokens: tuple[int, int] = (64, 256)  # short: growth shows among many requests
    max_tokens: int = 32  # of every reply: stop tokens are passed over
    temperature: float = 0.8
    target_nats: float = 1.0
    sparse_from: int = 512  # tokens of context from which coverage may fall below 1
    profile_passes: int = 0  # over the profile's grid, timed between the runs; 0: P's law is used
    redo_beyond: float = 0.25  # of the median reference step: a run beyond is played again

    def __post_init__(self) -> None:
        for name in ("requests", "overload_requests", "repeats", "overload_repeats"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1", **{name: getattr(self, name)})
        require(self.requests >= 2, "requests must be >= 2", requests=self.requests)
        require(self.max_tokens >= 2, "max_tokens must be >= 2", max_tokens=self.max_tokens)
        require(len(self.loads) >= 1, "loads must not be empty", loads=self.loads)
        require(len(self.presets) >= 1, "presets must not be empty", presets=self.presets)
        require(self.seed >= 0, "seed must be >= 0", seed=self.seed)
        passes, beyond = self.profile_passes, self.redo_beyond
        require(passes >= 0, "profile_passes must be >= 0", profile_passes=passes)
        require(
            math.isfinite(beyond) and beyond > 0.0,
            "redo_beyond must be finite and > 0",
            redo_beyond=beyond,
        )
        require(self.sparse_from >= 1, "sparse_from must be >= 1", sparse_from=self.sparse_from)
        for load in self.loads:
            require(math.isfinite(load) and load > 0.0, "loads must be finite and > 0", load=load)
        for name in self.presets:
            get_preset(name)
        for name, values in (("loads", self.loads), ("presets", self.presets)):
            require(len(set(values)) == len(values), f"{name} must be distinct", got=values)
        for name in ("prompt_tokens", "overload_prompt_tokens"):
            low, high = getattr(self, name)
            require(1 <= low <= high, f"{name} must be LO-HI, 1 <= LO <= HI", got=(low, high))
        require(
            math.isfinite(self.temperature) and self.temperature > 0.0,
            "temperature must be finite and > 0",
            temperature=self.temperature,
        )

    def preset(self, name: str) -> Preset:
        """Return a preset that reads fewer pages from ``sparse_from`` tokens on."""
        return replace(get_preset(name), sparse_min_context=self.sparse_from)

    def to_json(self) -> dict[str, Any]:
        """Return every option by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One run: which preset serves which load, for the how-manieth time, at which try."""

    preset: str
    load: float
    repeat: int
    attempt: int = 0  # of a run that was disturbed: played again

    @property
    def name(self) -> str:
        """A name for its file."""
        again = f"-again{self.attempt}" if self.attempt else ""
        return f"{self.preset}-{self.load:g}-{self.repeat}{again}"

    @property
    def closed(self) -> bool:
        """Whether its requests are all there at once."""
        return self.load == CLOSED

    @property
    def overloaded(self) -> bool:
        """Whether more is asked than can be served."""
        return self.load > OVERLOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a run: when it comes, and which recording answers for it in simulation."""

    request: Request
    at_s: float
    recording: int


def specs(options: LiveOptions) -> list[Spec]:
    """Return every run in the order in which they are made.

    Within a repeat presets and loads come in an order drawn anew, so that a slow spell of the
    machine touches all alike; a closed batch goes first.
    """
    rng = np.random.default_rng([options.seed, 3])
    found = [Spec(preset="baseline", load=CLOSED, repeat=0)]
    for repeat in range(options.repeats):
        row = [
            Spec(preset=preset, load=load, repeat=repeat)
            for load in options.loads
            if load <= OVERLOAD
            for preset in options.presets
        ]
        if repeat < options.overload_repeats:
            over = [load for load in options.loads if load > OVERLOAD]
            row += [Spec(preset="baseline", load=load, repeat=repeat) for load in over]
        found += [row[i] for i in rng.permutation(len(row))]
    return found


def window(arrivals: Arrivals, n: int, seed: Sequence[int]) -> Arrivals:
    """Return ``n`` consecutive arrivals from a place drawn by ``seed``; the first is at 0."""
    if arrivals.prompt_tokens is None:
        raise LiveError(f"{arrivals.source}: prompt_tokens: a live run needs lengths; got none")
    if len(arrivals) < n:
        raise LiveError(f"{arrivals.source}: must hold {n} arrivals; got {len(arrivals)}")
    begin = int(np.random.default_rng(seed).integers(0, len(arrivals) - n + 1))
    times = arrivals.times_s[begin : begin + n]
    return picked(arrivals, np.arange(begin, begin + n), times - times[0])


def prompt_lengths(arrivals: Arrivals, part: Arrivals, limits: tuple[int, int]) -> np.ndarray:
    """Return the window's prompt lengths scaled and clipped into ``limits``, int64 ``[n]``.

    The whole trace's 99th percentile becomes the upper limit.
    """
    assert arrivals.prompt_tokens is not None, "a window was taken from it"
    assert part.prompt_tokens is not None, "it is a part of a trace with lengths"
    low, high = limits
    scale = high / float(np.percentile(arrivals.prompt_tokens, TOP))
    scaled = np.rint(part.prompt_tokens * scale).astype(np.int64)
    return np.clip(scaled, low, high)


def asked_of(
    options: LiveOptions, arrivals: Arrivals, spec: Spec, capacity_per_s: float
) -> list[Asked]:
    """Return the requests of a run, in order of arrival.

    Runs of one load see the same requests at the same times in every repeat, with other sampling
    noise; above capacity each repeat has a window of its own.
    """
    n = options.overload_requests if spec.overloaded else options.requests
    part = window(arrivals, n, base_seed(options, spec))
    allowed = options.overload_prompt_tokens if spec.overloaded else options.prompt_tokens
    lengths = prompt_lengths(arrivals, part, allowed)
    times = np.zeros(n)
    if not spec.closed:
        times = rescaled(part, spec.load * capacity_per_s).times_s
    noise = (options.seed * 1000 + spec.repeat + 1) * SEEDS_APART
    return [
        Asked(
            request=request_of(options, index, int(length), noise + index),
            at_s=float(at_s),
            recording=index % options.requests,
        )
        for index, (length, at_s) in enumerate(zip(lengths, times, strict=True))
    ]


def base_seed(options: LiveOptions, spec: Spec) -> list[int]:
    """Return the seed of the window that a run plays."""
    return [options.seed, 1, spec.repeat + 1] if spec.overloaded else [options.seed, 1, 0]


def recorded_requests(options: LiveOptions, arrivals: Arrivals) -> list[Request]:
    """Return the requests to record: those below capacity, with noise that no run has."""
    spec = Spec(preset="baseline", load=CLOSED, repeat=-1)
    return [each.request for each in asked_of(options, arrivals, spec, 1.0)]


def request_of(options: LiveOptions, index: int, prompt_tokens: int, seed: int) -> Request:
    """Return a request of fixed length under the campaign's temperature."""
    return Request(
        request_id=index,
        prompt_tokens=prompt_tokens,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        target_nats=options.target_nats,
        seed=seed,
    )
