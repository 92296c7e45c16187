"""A law against the constant temperature of equal mean entropy, on the same recorded tokens.

Comparing likelihood at unequal entropy says only that colder text is likelier. So each preset is
set beside the one fixed T whose mean H over the same tokens is its own (DESIGN section 3), both
read off the recorded dense curves. On given logits no law can win this in likelihood: d NLL / dH =
T for every token, so among all temperatures of equal mean H the constant one minimises mean NLL.
What a law may buy is a steadier H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from reports.statistics import Interval
from reports.studies.per_token import Served, Sums, by_prompt, half_width, n_prompts, served
from simulator.scenario import Run, Scenario

BISECTIONS = 50  # of ln T between the end nodes: to 1e-15
EXACT_DIGITS = 12  # below this a difference is rounding, and must not exclude zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A preset and the fixed T of its mean entropy; nats, per sampled token, dense attention."""

    fixed_temperature: float
    mean_temperature: float
    entropy_nats: float  # mean, of both
    nll_nats: float  # mean, of the preset, at T = 1
    fixed_nll_nats: float
    nll_difference: Interval  # preset less fixed; interval over prompts
    sd_nats: float  # of H within sequences, about each one's mean
    fixed_sd_nats: float
    sd_difference: Interval

    def to_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        gaps = {"nll_difference": self.nll_difference, "sd_difference": self.sd_difference}
        found: dict[str, object] = {
            f"{name}_nats": {"mean": gap.mean, "ci95": gap.half} for name, gap in gaps.items()
        }
        return found | {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in gaps
        }


def match(scenario: Scenario, runs: Sequence[Run], weights: np.ndarray) -> Matched | None:
    """Compare ``runs`` of one preset with its matched fixed T; None where every request is greedy.

    ``weights`` ``[resamples, prompts]`` draw prompts again. In a resample the mean entropies differ
    a little; to first order the NLL difference moves by T times that, which is taken out. The sd
    difference keeps T.
    """
    tokens = _sampled(served(scenario, runs))
    if not len(tokens.row):
        return None
    law = _sums(scenario, tokens, tokens.x)
    wanted = float(law["h"].sum() / law["n"].sum())
    x = matched_x(scenario, tokens.row, wanted)
    fixed = _sums(scenario, tokens, np.full(len(tokens.row), x))
    everyone = np.ones((1, len(law["n"])))
    points, resamples = (_statistics(law, fixed, drawn, np.exp(x)) for drawn in (everyone, weights))
    n = n_prompts(scenario)
    nll, nll_fixed, sd, sd_fixed, *gaps = (float(column[0]) for column in points)
    nll_gap, sd_gap = (round(gap, EXACT_DIGITS) for gap in gaps)
    return Matched(
        fixed_temperature=float(np.exp(x)),
        mean_temperature=float(np.exp(tokens.x).mean()),
        entropy_nats=wanted,
        nll_nats=nll,
        fixed_nll_nats=nll_fixed,
        nll_difference=Interval(nll_gap, half_width(resamples[4], n)),
        sd_nats=sd,
        fixed_sd_nats=sd_fixed,
        sd_difference=Interval(sd_gap, half_width(resamples[5], n)),
    )


def matched_x(scenario: Scenario, rows: np.ndarray, entropy_nats: float) -> float:
    """Return the ln T at which the recorded ``rows``, repeats counted, have this mean entropy.

    Mean H rises with T, so bisection finds it; outside the recorded range the nearest end.
    """
    curves = scenario.model.curves
    distinct, count = np.unique(rows, return_counts=True)
    low, high = float(curves.x_nodes[0]), float(curves.x_nodes[-1])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        h, _, _ = curves.outcome(distinct, np.full(len(distinct), middle))
        if float(h @ count) / len(rows) < entropy_nats:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _sampled(tokens: Served) -> Served:
    names = [field.name for field in fields(tokens)]
    return replace(tokens, **{name: getattr(tokens, name)[tokens.sampled] for name in names})


def _sums(scenario: Scenario, tokens: Served, x: np.ndarray) -> Sums:
    """Return by prompt: tokens, H, NLL, and squares of H about each sequence's mean."""
    h, _, nll = scenario.model.curves.outcome(tokens.row, x)
    length = np.maximum(np.bincount(tokens.sequence), 1)
    mean = np.bincount(tokens.sequence, weights=h) / length
    square = (h - mean[tokens.sequence]) ** 2
    columns = {"n": np.ones(len(h)), "h": h, "nll": nll, "square": square}
    return {name: by_prompt(scenario, tokens.prompt, values) for name, values in columns.items()}


def _statistics(law: Sums, fixed: Sums, weights: np.ndarray, t: float) -> tuple[np.ndarray, ...]:
    """Return NLL of both, sd of both and the two differences, each ``[resamples]``."""
    n = weights @ law["n"]

    def mean(sums: Sums, name: str) -> np.ndarray:
        return (weights @ sums[name]) / n

    nll, nll_fixed = mean(law, "nll"), mean(fixed, "nll")
    sd, sd_fixed = np.sqrt(mean(law, "square")), np.sqrt(mean(fixed, "square"))
    drift = t * (mean(law, "h") - mean(fixed, "h"))
    return nll, nll_fixed, sd, sd_fixed, nll - nll_fixed - drift, sd - sd_fixed
