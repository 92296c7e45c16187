"""Does a law steady the entropy? Variance of H at matched mean, on recorded logits and live.

A colder temperature lowers the mean and the variance of H together, so each law is set beside the
fixed T whose mean H is its own. Variance is within sequences, about each one's mean. On recorded
logits the text does not answer to the temperature: the comparison is exact, and paired token by
token. Live, the text does answer, and fixed temperatures are run on a grid around the law.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core import TemperatureLaw, TokenSignal
from controllers.temperature import EntropyFeedback, FeedforwardNewton
from reports.statistics import Interval, t_half
from simulator.model import TraceModel
from traces.store import Trace

LAWS: Mapping[str, TemperatureLaw] = {
    "feedback": EntropyFeedback(),
    "feedback, gain .1": EntropyFeedback(gain=0.1),
    "newton": FeedforwardNewton(),
    "newton, full step": FeedforwardNewton(kappa=1.0),
}
TARGETS_NATS = (0.5, 1.0, 1.5, 2.0)
USER_TEMPERATURE = 0.8
RESAMPLES = 1000
BISECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """One law at one set-point beside its matched fixed T; nats, per sampled token."""

    law: str
    target_nats: float
    tokens: int
    mean_nats: float  # of both
    fixed_temperature: float
    variance: float  # of H within sequences, nats^2
    fixed_variance: float
    ratio: Interval  # variance over fixed_variance; interval over prompts
    correlation: float  # lag-1, within sequences, of H under the fixed T

    def to_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        return {
            "law": self.law,
            "target_nats": self.target_nats,
            "tokens": self.tokens,
            "mean_entropy_nats": self.mean_nats,
            "fixed_temperature": self.fixed_temperature,
            "variance_nats2": self.variance,
            "fixed_variance_nats2": self.fixed_variance,
            "ratio": {"mean": self.ratio.mean, "ci95": self.ratio.half},
            "lag1_correlation": self.correlation,
        }


def recorded(
    trace: Trace, model: TraceModel, *, targets: Sequence[float] = TARGETS_NATS, seed: int = 0
) -> list[Steadiness]:
    """Compare every law at every set-point on the recording's logits; seconds of work."""
    sequences = Sequences.of(trace)
    weights = sequences.resampled(seed)
    return [
        _compare(model, sequences, weights, name, law, target)
        for target in targets
        for name, law in LAWS.items()
    ]


@dataclass(frozen=True, slots=True)
class Sequences:
    """The sampled recorded sequences: rows of the curve table, padded with -1, and prompts."""

    rows: np.ndarray  # int [S, t]
    prompt: np.ndarray  # int [S], index among distinct prompts

    @classmethod
    def of(cls, trace: Trace) -> Sequences:
        """Return every recorded request with two tokens or more."""
        _, prompt = np.unique([r.prompt_id for r in trace.requests], return_inverse=True)
        slices = np.asarray(trace.slices)
        length = slices[:, 1] - slices[:, 0]
        kept = np.flatnonzero(length >= 2)
        rows = np.full((len(kept), int(length[kept].max())), -1)
        for i, request in enumerate(kept):
            rows[i, : length[request]] = np.arange(*slices[request])
        return cls(rows, prompt[kept])

    @property
    def live(self) -> np.ndarray:
        """Return which cells hold a token, bool ``[S, t]``."""
        return self.rows >= 0

    def resampled(self, seed: int) -> np.ndarray:
        """Return how often each sequence counts in each resample of prompts, ``[resamples, S]``."""
        n = int(self.prompt.max()) + 1
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES)
        return drawn[:, self.prompt].astype(np.float64)


def run_law(
    model: TraceModel, rows: np.ndarray, law: TemperatureLaw, target_nats: float, x_user: float
) -> np.ndarray:
    """Return the ln T that ``law`` commands at every recorded token, ``[S, t]``; padding is 0."""
    lanes = len(rows)
    state = None
    commands = np.zeros(rows.shape)
    surprisal = np.zeros(lanes)
    for t in range(rows.shape[1]):
        row = np.where(rows[:, t] >= 0, rows[:, t], 0)
        signal = _signal(lanes, t, target_nats, x_user, surprisal)
        state = law.init(signal) if state is None else state
        h_in, v_in = model.curves.entropy(row, np.asarray(law.x_in(state), np.float64))
        signal = signal._replace(
            h_in=h_in, v_in=v_in, h_cal=model.h_cal[row], v_cal=model.v_cal[row]
        )
        state, command = law.update(state, signal)
        commands[:, t] = np.where(rows[:, t] >= 0, command, 0.0)
        surprisal = model.curves.outcome(row, np.asarray(command, np.float64))[2]
    return commands


def _signal(
    lanes: int, t: int, target_nats: float, x_user: float, surprisal: np.ndarray
) -> TokenSignal:
    zero = np.zeros(lanes)
    return TokenSignal(
        h_cal=zero,
        v_cal=zero,
        h_in=zero,
        v_in=zero,
        surprisal=surprisal,
        target_nats=zero + target_nats,
        x_user=zero + x_user,
        x_cap=zero + np.inf,
        enabled=zero + 1.0,
        position=zero + t,
    )


def _compare(
    model: TraceModel,
    sequences: Sequences,
    weights: np.ndarray,
    name: str,
    law: TemperatureLaw,
    target: float,
) -> Steadiness:
    live = sequences.live
    x = run_law(model, sequences.rows, law, target, float(np.log(USER_TEMPERATURE)))
    under_law = _entropy(model, sequences, x)
    mean = float(under_law[live].mean())
    fixed_x = _matched(model, sequences, mean)
    under_fixed = _entropy(model, sequences, np.full(x.shape, fixed_x))
    squares, fixed_squares = (_squares(h, live) for h in (under_law, under_fixed))
    ratios = (weights @ squares) / (weights @ fixed_squares)
    n = int(sequences.prompt.max()) + 1
    return Steadiness(
        law=name,
        target_nats=target,
        tokens=int(live.sum()),
        mean_nats=mean,
        fixed_temperature=float(np.exp(fixed_x)),
        variance=float(squares.sum() / live.sum()),
        fixed_variance=float(fixed_squares.sum() / live.sum()),
        ratio=Interval(
            float(squares.sum() / fixed_squares.sum()), t_half(float(ratios.std(ddof=1)), n)
        ),
        correlation=lag_one(under_fixed, live),
    )


def _entropy(model: TraceModel, sequences: Sequences, x: np.ndarray) -> np.ndarray:
    """Return H at ``x`` of every token, ``[S, t]``; padding is 0."""
    live = sequences.live
    h = np.zeros(x.shape)
    h[live] = model.curves.outcome(sequences.rows[live], x[live])[0]
    return h


def _matched(model: TraceModel, sequences: Sequences, mean_nats: float) -> float:
    """Return the one ln T with this mean entropy over the same tokens; H rises with T."""
    rows = sequences.rows[sequences.live]
    low, high = float(model.curves.x_nodes[0]), float(model.curves.x_nodes[-1])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        colder = model.curves.outcome(rows, np.full(len(rows), middle))[0].mean() < mean_nats
        low, high = (middle, high) if colder else (low, middle)
    return 0.5 * (low + high)


def _squares(h: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Return each sequence's sum of squares about its own mean, ``[S]``."""
    mean = (h * live).sum(axis=1) / live.sum(axis=1)
    return (((h - mean[:, None]) ** 2) * live).sum(axis=1)


def lag_one(h: np.ndarray, live: np.ndarray) -> float:
    """Return the lag-1 correlation of H within sequences, pooled over them."""
    mean = (h * live).sum(axis=1) / live.sum(axis=1)
    e = (h - mean[:, None]) * live
    return float((e[:, 1:] * e[:, :-1]).sum() / (e**2).sum())
