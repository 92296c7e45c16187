"""A small valid trace from made-up logits, for tests and timings: no result may rest on it.

Row t of a request has Zipf logits -s_t ln(rank) plus noise, where the exponent s_t follows an AR(1)
process, and now and then two tokens nearly tie. H, V, surprisals and the pruned subsample are exact
for those logits; page shares are an invented monotone function of coverage and s_t.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.core import require
from traces.columns import Columns
from traces.header import RecordedRequest
from traces.schema import (
    COVERAGES,
    PRUNED_NODES,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    X_NODES,
    C,
    P,
    S,
)
from traces.store import Trace, TraceWriter

TASK_CLASSES = ("freeform", "code", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticShape:
    """Size and texture of a synthetic trace."""

    n_requests: int = 12
    output_tokens: int = 32  # longest; each request draws from the upper half
    prompt_tokens: int = 48  # mean; drawn from half to one and a half times this
    vocabulary: int = 256
    temperatures: tuple[float, ...] = (0.6, 0.9, 1.2)  # in turn
    t_cal: float = 0.8
    correlation: float = 0.7  # lag-1, of the Zipf exponent
    pruned_every: int = 8  # every so manieth row has a pruned measurement; 0: none

    def __post_init__(self) -> None:
        for name in ("n_requests", "output_tokens", "prompt_tokens"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1", **{name: getattr(self, name)})
        require(self.vocabulary >= 2, "vocabulary must be >= 2", vocabulary=self.vocabulary)
        require(abs(self.correlation) < 1.0, "|correlation| must be < 1", value=self.correlation)
        low, high = np.exp(X_NODES[[0, -1]])
        require(
            all(low <= t <= high for t in (*self.temperatures, self.t_cal)),
            f"temperatures must lie in [{low:g}, {high:g}]",
            temperatures=self.temperatures,
            t_cal=self.t_cal,
        )


def synthetic_trace(shape: SyntheticShape, *, seed: int) -> Trace:
    """Return a trace in memory; equal arguments give equal arrays. Its path names no file."""
    rng = np.random.default_rng(seed)
    requests, parts = [], []
    for index in range(shape.n_requests):
        longest = shape.output_tokens
        output = int(rng.integers(max(1, longest // 2), longest + 1))
        prompt = int(
            rng.integers(max(1, shape.prompt_tokens // 2), 3 * shape.prompt_tokens // 2 + 1)
        )
        requests.append(_request(index, prompt, output, shape))
        parts.append(_tokens(requests[-1], shape, rng))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for values in columns.values():
        values.setflags(write=False)
    ends = np.cumsum([r.output_tokens for r in requests])
    slices = np.stack([ends - [r.output_tokens for r in requests], ends], axis=1)
    digest = hashlib.sha256(b"".join(values.tobytes() for values in columns.values())).hexdigest()
    return Trace(
        path=Path("synthetic"),
        metadata={
            "schema": SCHEMA_NAME,
            "version": SCHEMA_VERSION,
            **_metadata(shape, seed),
            "rows": int(ends[-1]),
        },
        requests=tuple(requests),
        columns=columns,
        slices=slices,
        sha256=digest,
    )


def write_synthetic(path: Path | str, shape: SyntheticShape, *, seed: int) -> None:
    """Write ``synthetic_trace`` to ``path`` through the ordinary writer."""
    trace = synthetic_trace(shape, seed=seed)
    with TraceWriter(path, _metadata(shape, seed)) as writer:
        for request in trace.requests:
            writer.add_request(request)
            writer.add_tokens(trace.of(request.request))


def _metadata(shape: SyntheticShape, seed: int) -> dict[str, object]:
    return {
        "model": f"synthetic Zipf logits, {shape.vocabulary} tokens",
        "weights_sha256": "",
        "t_cal": shape.t_cal,
        "page_tokens": 16,
        "layers": 4,
        "kv_heads": 2,
        "page_unit_bytes": 8192,
        "pins": "none",
        "commit": "none",
        "command": f"synthetic_trace(seed={seed})",
        "versions": {"numpy": np.__version__},
    }


def _request(index: int, prompt: int, output: int, shape: SyntheticShape) -> RecordedRequest:
    return RecordedRequest(
        request=index,
        prompt_id=f"synthetic/{index}",
        task_class=TASK_CLASSES[index % len(TASK_CLASSES)],
        source="synthetic",
        prompt_sha256=hashlib.sha256(str(index).encode()).hexdigest(),
        prompt_tokens=prompt,
        output_tokens=output,
        finish_reason="stop" if output < shape.output_tokens else "length",
        temperature=float(np.float32(shape.temperatures[index % len(shape.temperatures)])),
        seed=index,
    )


def _tokens(request: RecordedRequest, shape: SyntheticShape, rng: np.random.Generator) -> Columns:
    rows = request.output_tokens
    exponent = _exponents(rows, shape.correlation, rng)
    logits = _logits(exponent, shape.vocabulary, rng)
    x = np.float32(np.log(request.temperature))
    chances = np.exp(_log_softmax(logits, float(x)))
    token = (chances.cumsum(1) < rng.random((rows, 1)) * chances.sum(1, keepdims=True)).sum(1)
    token = np.minimum(token, shape.vocabulary - 1)
    at_one = _log_softmax(logits, 0.0)
    h, v = _curves(logits, X_NODES)
    h_cal, v_cal = _curves(logits, np.log([shape.t_cal]))
    h_applied, _ = _curves(logits, np.array([x]))
    kept = _kept(exponent)
    h_pruned, kl_pruned = _pruned(logits, at_one, shape.pruned_every, rng)
    columns = {
        "request": np.full(rows, request.request, np.int32),
        "position": np.arange(rows, dtype=np.int32),
        "context": request.prompt_tokens + np.arange(rows, dtype=np.int32),
        "token": token.astype(np.int32),
        "x_applied": np.full(rows, x),
        "h_applied": h_applied[:, 0],
        "surprisal": -at_one[np.arange(rows), token],
        "h_cal": h_cal[:, 0],
        "v_cal": v_cal[:, 0],
        "h": h,
        "v": v,
        "kept_mean": kept,
        "kept_max": np.minimum(1.5 * kept, 1.0),
        "dropped": np.broadcast_to(1.0 - COVERAGES, kept.shape),
        "evictable": (1.0 - kept) / 4.0,
        "h_pruned": h_pruned,
        "kl_pruned": kl_pruned,
    }
    integers = ("request", "position", "context", "token")
    return {k: a if k in integers else np.array(a, np.float32) for k, a in columns.items()}


def _exponents(rows: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    shock = rng.normal(0.0, np.sqrt(1.0 - correlation**2), rows)
    level, walk = rng.normal(), []
    for step in shock:
        level = correlation * level + step
        walk.append(level)
    return 1.8 * np.exp(0.35 * np.array(walk))  # [rows], > 0


def _logits(exponent: np.ndarray, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    rank = np.log(np.arange(1, vocabulary + 1))
    logits = -exponent[:, None] * rank + rng.normal(0.0, 0.5, (len(exponent), vocabulary))
    tied = rng.random(len(exponent)) < 0.15
    top = logits.max(axis=1)[tied] + 3.0
    logits[tied, 0], logits[tied, 1] = top, top - rng.random(len(top)) * 0.3
    return logits


def _log_softmax(logits: np.ndarray, x: float) -> np.ndarray:
    """Return ln p of ``logits`` ``[rows, n]`` at ln T = ``x``, in nats."""
    shifted = (logits - logits.max(axis=1, keepdims=True)) / np.exp(x)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _curves(logits: np.ndarray, x_nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h, v = np.empty((2, len(logits), len(x_nodes)))
    for k, x in enumerate(x_nodes):
        log_p = _log_softmax(logits, float(x))
        p = np.exp(log_p)
        h[:, k] = -(p * log_p).sum(axis=1)
        v[:, k] = (p * (log_p + h[:, k : k + 1]) ** 2).sum(axis=1)
    return h, v


def _kept(exponent: np.ndarray) -> np.ndarray:
    flat = 1.0 / (1.0 + exponent)  # flatter rows need more pages
    share = 1.0 - np.exp(-0.5 * flat[:, None] * -np.log1p(-COVERAGES))
    estimated = np.minimum(0.15 + 0.85 * share, 1.0)  # pins and floors
    return np.stack([estimated, 0.8 * estimated], axis=1).reshape(len(exponent), S, C)


def _pruned(
    logits: np.ndarray, at_one: np.ndarray, every: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Recompute H at three nodes from logits moved by noise that grows as coverage falls."""
    h, kl = np.full((len(logits), C, P), np.nan), np.full((len(logits), C), np.nan)
    if every == 0:
        return h, kl
    kept = np.arange(0, len(logits), every)
    noise = rng.normal(size=(len(kept), logits.shape[1]))
    for c, coverage in enumerate(COVERAGES):
        moved = logits[kept] + noise * 1.5 * (1.0 - coverage)
        h[kept, c] = _curves(moved, X_NODES[list(PRUNED_NODES)])[0]
        difference = at_one[kept] - _log_softmax(moved, 0.0)
        kl[kept, c] = (np.exp(at_one[kept]) * difference).sum(axis=1)
    return h, kl
