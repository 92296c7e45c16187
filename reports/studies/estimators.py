"""The paper's ablation 6.1 done: entropy estimators against exact entropy, on live logits.

For each estimator: how far from exact H, how well correlated, and what matters, how often the laws
decide otherwise. The temperature law runs with the estimate inside its loop, on the same logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from controllers.core import State, TokenSignal, take_lanes
from controllers.coverage import EntropyCoverage
from controllers.entropy import entropy_varentropy
from controllers.estimators import TopK, interval, tail_corrected, truncated
from controllers.temperature import EntropyFeedback
from reports.statistics import Interval, t_half

ESTIMATORS: Mapping[str, Callable[[TopK], np.ndarray]] = MappingProxyType(
    {
        "truncated": truncated,
        "tail_corrected": tail_corrected,
        "midpoint": lambda top: interval(top).middle,
    }
)
RESAMPLES = 1000
COVERAGE_TOLERANCE = 0.005  # commands closer than this read the same pages, near enough
TARGET_NATS, USER_X = 1.0, float(np.log(0.8))


@dataclass(frozen=True, slots=True)
class Rows:
    """Logit rows of generated tokens, one sequence behind the other."""

    logits: np.ndarray  # float32 [R, n]
    sequence: np.ndarray  # int [R], rising
    prompt: np.ndarray  # int [S], prompt of each sequence, from 0

    @property
    def vocabulary(self) -> int:
        """Return n."""
        return self.logits.shape[1]


def compare(rows: Rows, ks: Sequence[int], seed: int) -> list[dict[str, object]]:
    """Return a row per estimator and k, nats; intervals by a bootstrap over prompts."""
    exact, _ = entropy_varentropy_rows(rows, 0.0)
    prompt = rows.prompt[rows.sequence]
    weights = _resampled(int(rows.prompt.max()) + 1, seed)
    decided = _coverage(rows, exact)
    steered = _temperatures(rows, None)
    found = []
    for k in ks:
        top = top_k(rows.logits, 0.0, k)
        bounds = interval(top)
        inside = (bounds.low - 1e-5 <= exact) & (exact <= bounds.high + 1e-5)
        for name, estimate in ESTIMATORS.items():
            error = estimate(top) - exact
            drift = _temperatures(rows, (name, k)) - steered
            found.append(
                {
                    "estimator": name,
                    "k": k,
                    "rows": len(exact),
                    "bias_nats": _mean(error, prompt, weights),
                    "rms_nats": float(np.sqrt((error**2).mean())),
                    "worst_nats": float(np.abs(error).max()),
                    "correlation": float(np.corrcoef(estimate(top), exact)[0, 1]),
                    "coverage_differs_share": _mean(
                        (np.abs(_coverage(rows, estimate(top)) - decided) > COVERAGE_TOLERANCE)
                        * 1.0,
                        prompt,
                        weights,
                    ),
                    "ln_t_drift": _mean(np.abs(drift), prompt, weights),
                    "ln_t_bias": _mean(drift, prompt, weights),
                    "interval_width_nats": float((bounds.high - bounds.low).mean()),
                    "inside_interval_share": float(inside.mean()),
                    "tail_mass": float(top.tail.mean()),
                }
            )
    return found


def top_k(logits: np.ndarray, x: np.ndarray | float, k: int) -> TopK:
    """Return the top k of ``logits [R, n]`` at ln T = ``x``, normalised over the whole row."""
    beta = np.exp(-np.broadcast_to(np.asarray(x, np.float64), logits.shape[:1]))[:, None]
    kept = -np.sort(-np.partition(logits, -k, axis=1)[:, -k:], axis=1).astype(np.float64)
    top = kept[:, :1]
    total = np.exp(beta * (logits - top)).sum(axis=1, keepdims=True)
    return TopK.of(beta * (kept - top) - np.log(total), logits.shape[1])


def entropy_varentropy_rows(
    rows: Rows, x: np.ndarray | float, chunk: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Return exact H and V of every row at ln T = ``x``, ``[R]``; chunked, to bound memory."""
    xs = np.broadcast_to(np.asarray(x, np.float64), len(rows.logits))
    parts = [
        entropy_varentropy(rows.logits[i : i + chunk], xs[i : i + chunk])
        for i in range(0, len(rows.logits), chunk)
    ]
    return np.concatenate([h for h, _ in parts]), np.concatenate([v for _, v in parts])


def _coverage(rows: Rows, h: np.ndarray) -> np.ndarray:
    """Return the coverage law's command at every row, fed ``h`` as the entropy at T_cal."""
    law, out = EntropyCoverage(), np.zeros(len(h))
    state = None
    for here, signal in _steps(rows):
        signal = signal._replace(h_cal=h[here])
        state = _running(law.init(signal) if state is None else state, len(here))
        state, out[here] = law.update(state, signal)
    return out


def _temperatures(rows: Rows, estimate: tuple[str, int] | None) -> np.ndarray:
    """Return the feedback law's ln T at every row, with an estimate of H in its loop, or exact."""
    law, out = EntropyFeedback(), np.zeros(len(rows.logits))
    state: State = None
    for here, signal in _steps(rows):
        state = _running(law.init(signal) if state is None else state, len(here))
        logits, x = rows.logits[here], law.x_in(state)
        h, v = entropy_varentropy(logits, x)
        if estimate is not None:
            name, k = estimate
            h = ESTIMATORS[name](top_k(logits, x, k))
        state, out[here] = law.update(state, signal._replace(h_in=h, v_in=v))
    return out


def _running(state: State, lanes: int) -> State:
    return take_lanes(state, np.arange(lanes))


def _steps(rows: Rows) -> list[tuple[np.ndarray, TokenSignal]]:
    """Return, step by step, the rows of the sequences still running, longest sequence first."""
    length = np.bincount(rows.sequence)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    order = np.argsort(-length, kind="stable")
    steps = []
    for t in range(int(length.max())):
        running = order[length[order] > t]
        zero = np.zeros(len(running))
        signal = TokenSignal(
            h_cal=zero,
            v_cal=zero,
            h_in=zero,
            v_in=zero,
            surprisal=zero,
            target_nats=zero + TARGET_NATS,
            x_user=zero + USER_X,
            x_cap=zero + np.inf,
            enabled=zero + 1.0,
            position=zero + t,
        )
        steps.append((first[running] + t, signal))
    return steps


def _resampled(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES).astype(np.float64)


def _mean(values: np.ndarray, prompt: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
    """Return the mean over rows, with a 95 % half-width over prompts."""
    n = weights.shape[1]
    sums, counts = (np.bincount(prompt, w, minlength=n) for w in (values, np.ones(len(values))))
    drawn = (weights @ sums) / np.maximum(weights @ counts, 1.0)
    half = t_half(float(drawn.std(ddof=1)), n) if n > 1 else None
    found = Interval(float(sums.sum() / counts.sum()), half)
    return {"mean": found.mean, "ci95": found.half}
