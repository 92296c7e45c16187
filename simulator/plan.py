"""A capacity plan: how many servers a service level takes, at what cost, under each preset.

Every preset sees the same hours: the recorded one and ``seeds`` resampled ones, each request joined
to the same recording under every preset, load and number of servers (common random numbers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator.pareto import difference, told_apart
from simulator.plan_bracket import RUNG
from simulator.plan_cost import UTILISATION, Costed, Price
from simulator.plan_figures import Spread, another_hour
from simulator.plan_point import RECORDED, Setup
from simulator.plan_pool import Pool
from simulator.plan_search import Answer, Question, drive, look, search
from simulator.slo import Slo
from traces.arrivals import Arrivals

COMPARED = (
    "ttft_s.p99",
    "tpot_s.p95",
    "e2e_s.mean",
    "busy_s",
    UTILISATION,
    "kv_pages_kept_share",
    "nll_per_token_nats",
    "tau_per_token_nats",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of a preset beside the reference's on the same hours and servers."""

    spread: Spread | None  # of the difference, in the figure's own unit
    share: float | None  # the centre of the difference as a share of the reference's

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes zero."""
        return told_apart(self.spread) != 0

    def to_json(self) -> dict[str, object]:
        """Return the difference and whether it can be told from none."""
        spread = None if self.spread is None else self.spread.to_json()
        return {"difference": spread, "share": self.share, "told_apart": self.told_apart}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one preset needs and costs."""

    preset: str
    answer: Answer
    fewest: Costed
    fewer: Costed | None
    knee: Costed | None
    alike: Costed  # on the reference's number of servers
    against: Mapping[str, Compared]  # the reference, there; empty for the reference itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answers for every preset, the reference first."""

    setup: Setup
    question: Question
    price: Price
    rows: tuple[Row, ...]

    @property
    def reference(self) -> Row:
        """The preset that others are compared with."""
        return self.rows[0]


def make_plan(
    setup: Setup,
    slo: Slo,
    pool: Pool,
    *,
    presets: Sequence[str],
    price: Price,
    draws: int = 5,
    replicas_max: int = 64,
) -> Plan:
    """Search for every preset side by side, then compare all on the reference's servers."""
    require(len(presets) >= 1, "presets must name one", presets=presets)
    require(len(set(presets)) == len(presets), "presets must be distinct", presets=presets)
    for name in presets:
        get_preset(name)
    scenario = setup.scenario
    question = Question(
        slo=slo,
        rate_per_s=scenario.rate_per_s,
        draws=draws,
        replicas_max=replicas_max,
        rate_guess_per_s=first_guess_per_s(setup.arrivals, scenario.profile.law, scenario.limits),
        head_start_rungs=head_start(setup, draws),
    )
    answers = drive({name: search(question, name) for name in presets}, pool.figures)
    count = answers[presets[0]].fewest.replicas
    alike = drive(
        {name: look(question, name, count, question.rate_per_s) for name in presets}, pool.figures
    )
    costed = {name: Costed.of(load, price) for name, load in alike.items()}
    return Plan(
        setup=setup,
        question=question,
        price=price,
        rows=tuple(
            _row(answers[name], costed[name], costed[presets[0]], price) for name in presets
        ),
    )


def first_guess_per_s(arrivals: Arrivals, law: StepLaw, limits: EngineLimits) -> float:
    """Return roughly what one server finishes per second: where the search for the knee begins.

    Half of one over the mean request's share of a full batch's time, memory allowing.
    """
    assert arrivals.prompt_tokens is not None, "a plan has lengths"
    assert arrivals.output_tokens is not None, "a plan has lengths"
    prompt, output = arrivals.prompt_tokens.astype(float), arrivals.output_tokens.astype(float)
    pages = float(np.mean((prompt + output) / limits.page_tokens)) + 0.5
    batch = min(float(limits.max_seqs), max(1.0, limits.n_pages / pages))
    seconds = (
        output * law.decode_row_s(batch)
        + law.per_kv_token_s * (output * prompt + output * (output + 1.0) / 2.0)
        + law.per_prompt_token_s * prompt
        + law.per_prompt_square_s * prompt**2
    )
    require(float(seconds.mean()) > 0.0, "the step law must cost something", step_law=law)
    return 0.5 / float(seconds.mean())


def head_start(setup: Setup, draws: int) -> int:
    """Return by how many rungs the offered load of resampled hours may exceed the recorded one.

    Load is output tokens per second: a guess of where the knee of all hours lies, not a result.
    """
    hours = [setup.drawn(draw) for draw in range(RECORDED, draws + 1)]
    loads = [
        float(one.output_tokens.sum()) / max(float(one.times_s[-1]), 1e-9)
        for one in hours
        if one.output_tokens is not None
    ]
    found = another_hour(loads[1:], in_log=True)
    if found is None or found.high is None or loads[0] <= 0.0:
        return 0
    return max(0, round(math.log(found.high / loads[0]) / math.log(RUNG)))


def _row(answer: Answer, alike: Costed, reference: Costed, price: Price) -> Row:
    against = {}
    if alike is not reference:
        against = {name: _compared(name, alike, reference) for name in COMPARED}
    return Row(
        preset=answer.preset,
        answer=answer,
        fewest=Costed.of(answer.fewest, price),
        fewer=None if answer.fewer is None else Costed.of(answer.fewer, price),
        knee=None if answer.knee is None else Costed.of(answer.knee, price),
        alike=alike,
        against=against,
    )


def _compared(name: str, one: Costed, reference: Costed) -> Compared:
    found, base = difference(name, one.draws, reference.draws), reference.spread.get(name)
    share = None
    if found is not None and base is not None and base.centre:
        share = found.centre / abs(base.centre)
    return Compared(spread=found, share=share)
