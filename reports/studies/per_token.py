"""Per-token metrics with intervals by a bootstrap over prompts.

Every seed deals the same recorded requests, so the spread over seeds of an entropy or a likelihood
says next to nothing. Here each metric is a ratio of sums by prompt, all seeds and all recorded
temperatures of a prompt together, and prompts are drawn again with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from controllers.temperature import X_MAX, X_MIN
from reports.statistics import Interval, t_half
from simulator.scenario import Run, Scenario

RESAMPLES = 1000
BOOTSTRAP_SEED = 0
CLIP_TOLERANCE = 1e-6  # nats of ln T
RATIOS: Mapping[str, tuple[str, str]] = MappingProxyType(  # metric -> sums it is the ratio of
    {
        "kv_pages_kept_share": ("units_kept", "units_dense"),
        "kv_bytes_read_per_token": ("kv_bytes", "tokens"),
        "tau_nats_per_token": ("tau", "tokens"),
        "tau_cal_nats_per_token": ("tau_cal", "tokens"),
        "nll_nats_per_token": ("nll", "tokens"),
        "clip_share": ("on_clip", "tokens"),
        "mean_temperature": ("temperature", "tokens"),
        "mean_entropy_nats": ("entropy", "tokens"),
    }
)

Sums = dict[str, np.ndarray]  # float64 [prompts] each


@dataclass(frozen=True, slots=True)
class Served:
    """Every token that some runs generated, one row each; ``[n]``."""

    prompt: np.ndarray  # index among the trace's distinct prompts
    record: np.ndarray  # index of the recorded request
    row: np.ndarray  # recorded token row that answered
    x: np.ndarray  # ln T applied, float64
    sequence: np.ndarray  # distinct by run and request, from 0
    sampled: np.ndarray  # bool: not greedy


def served(scenario: Scenario, runs: Sequence[Run]) -> Served:
    """Return the tokens of ``runs`` in order, each with the recording that answered."""
    records, slices = scenario.trace.requests, scenario.trace.slices
    _, prompt_of = np.unique([record.prompt_id for record in records], return_inverse=True)
    greedy = np.array([record.temperature == 0 for record in records], bool)
    parts, first = [], 0
    for run in runs:
        arrivals = scenario.workload(run.seed).arrivals
        answers = np.array([arrival.trace_index for arrival in arrivals])
        tokens = run.result.ledger.tokens
        record = answers[tokens["request_id"]]
        row = slices[record, 0] + tokens["position"]
        assert np.all(row < slices[record, 1]), "a token lies beyond its recording"
        x = tokens["command"].astype(np.float64)
        sequence = first + tokens["request_id"]
        parts.append((prompt_of[record], record, row, x, sequence, ~greedy[record]))
        first += len(arrivals)
    return Served(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def n_prompts(scenario: Scenario) -> int:
    """Return the number of distinct prompts in the trace."""
    return len({record.prompt_id for record in scenario.trace.requests})


def prompt_sums(scenario: Scenario, runs: Sequence[Run]) -> Sums:
    """Return the sums behind ``RATIOS`` by prompt, over ``runs`` of one preset.

    KV is that of decode rows, the page score's own bytes included, as the executor counts it; the
    first token of a request comes out of its prefill. Recomputation after preemption is left out.
    """
    found = served(scenario, runs)
    tables = [run.result.ledger.tokens for run in runs]

    def column(name: str) -> np.ndarray:
        return np.concatenate([table[name] for table in tables]).astype(np.float64)

    entropy, coverage = column("h_applied"), column("coverage")
    kept, dense, scored = _page_units(scenario, found, column("position"), coverage)
    unit_bytes = scenario.bytes_per_page_unit
    columns = {
        "tokens": np.ones(len(entropy)),
        "temperature": np.exp(found.x),
        "entropy": entropy,
        "nll": column("surprisal"),
        "tau": _drops(found.sequence, entropy),
        "tau_cal": _drops(found.sequence, column("h_cal")),
        "on_clip": np.minimum(np.abs(found.x - X_MIN), np.abs(found.x - X_MAX)) <= CLIP_TOLERANCE,
        "units_kept": kept,
        "units_dense": dense,
        "kv_bytes": unit_bytes * (kept + scored / scenario.limits.page_tokens),
    }
    return {name: by_prompt(scenario, found.prompt, values) for name, values in columns.items()}


def by_prompt(scenario: Scenario, prompt: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sum of ``values`` over each prompt's tokens, ``[prompts]``."""
    return np.bincount(prompt, weights=values, minlength=n_prompts(scenario))


def resampled(scenario: Scenario) -> np.ndarray:
    """Return how often each resample holds each prompt, ``[RESAMPLES, prompts]``; always equal."""
    n = n_prompts(scenario)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return rng.multinomial(n, np.full(n, 1.0 / n), size=RESAMPLES).astype(np.float64)


def half_width(values: np.ndarray, n: int) -> float | None:
    """Return the 95 % half-width from a statistic's resamples over ``n`` prompts, Student's t.

    None where one prompt cannot tell, or a resample left the statistic undefined.
    """
    if n < 2 or not np.all(np.isfinite(values)):
        return None
    return t_half(float(values.std(ddof=1)), n)


def intervals(
    sums: Sums, weights: np.ndarray, reference: Sums | None = None, *, in_pct: bool = False
) -> dict[str, Interval | None]:
    """Return every metric of ``RATIOS``, or its difference to ``reference`` at equal prompts.

    ``weights`` come from ``resampled``; ``in_pct`` relates the difference to the reference's value.
    None where nothing counts.
    """
    everyone = np.ones((1, weights.shape[1]))
    points = _statistics(sums, everyone, reference, in_pct=in_pct)
    drawn = _statistics(sums, weights, reference, in_pct=in_pct)
    return {
        name: Interval(float(one[0]), half_width(drawn[name], weights.shape[1]))
        if np.isfinite(one[0])
        else None
        for name, one in points.items()
    }


def _statistics(
    sums: Sums, weights: np.ndarray, reference: Sums | None, *, in_pct: bool
) -> dict[str, np.ndarray]:
    """Return each metric under each row of ``weights``; NaN where nothing counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {}
        for name, (above, below) in RATIOS.items():
            value = (weights @ sums[above]) / (weights @ sums[below])
            if reference is not None:
                other = (weights @ reference[above]) / (weights @ reference[below])
                value = (value - other) * (100.0 / np.abs(other) if in_pct else 1.0)
            found[name] = value
        return found


def _page_units(
    scenario: Scenario, found: Served, position: np.ndarray, coverage: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return page units kept, dense and scored by each token's decode row; 0 for first tokens."""
    model = scenario.model
    prompt_tokens = np.array([record.prompt_tokens for record in scenario.trace.requests])
    context = prompt_tokens[found.record] + position  # the token's own query included
    pages = -(-context // model.page_tokens)
    dense = np.where(position > 0, pages * model.layers * model.kv_heads, 0.0)
    share = model.shares.share(found.row, coverage)
    return np.round(share * dense), dense, np.where(coverage < 1.0, dense, 0.0)


def _drops(sequence: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Return max(0, H before - H) of each token, 0 for the first of its sequence."""
    order = np.argsort(sequence, kind="stable")
    ordered = entropy[order]
    fall = np.maximum(-np.diff(ordered), 0.0) * (np.diff(sequence[order]) == 0)
    drops = np.zeros(len(entropy))
    drops[order[1:]] = fall
    return drops
