"""Judges of theory, clock, estimation and sampling: other evidence, another ruling."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest

from controllers.estimators import interval, truncated
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    TemperatureState,
)
from reports.claims import (
    calibration,
    clock,
    contraction,
    efficiency,
    estimators,
    micro,
    remarks,
    robustness,
    service,
    steadiness,
    theory,
)
from reports.claims.claim import Ruling
from reports.claims.context import Context
from reports.claims.loops import minus, printed
from reports.claims.ruling import fig, pct, ruled
from simulator.defaults import PROFILE, TRACE
from simulator.scenario import build
from traces.profile import read_profile
from traces.store import read_trace

HOLDS, CORRECTED, REFUTED, UNTESTABLE = Ruling
CLAIMS = (*theory.CLAIMS, *estimators.CLAIMS, *micro.CLAIMS)
MINE = (*range(1, 19), 32, 33, 36, 43)  # flaws of these sections


@functools.cache
def context(seed: int = 0) -> Context:
    return Context(scenario=build(read_trace(TRACE), read_profile(PROFILE)), seeds=(seed,))


@functools.cache
def judgement(key: str):
    return next(claim for claim in CLAIMS if claim.key == key).judge(context())


def served(gain: float):
    return EntropyFeedback(gain=min(gain, 0.03))


@dataclasses.dataclass(frozen=True)
class AsLinearised:
    """T+ = T - eta (H - H*) in T itself: its multiplier is 1 - eta H'(T), as the paper writes."""

    eta: float

    def init(self, signal):
        return TemperatureState(signal.x_user)

    def update(self, state, signal):
        t = np.exp(state.x) - self.eta * (signal.h_in - signal.target_nats)
        x = np.log(np.maximum(t, 1e-3))
        return TemperatureState(x), x

    def x_in(self, state):
        return state.x


@dataclasses.dataclass(frozen=True)
class Unstable:
    """Minus sign, but without clips and with three times the gain that any logits allow."""

    gain: float = 0.2

    def init(self, signal):
        return TemperatureState(signal.x_user)

    def update(self, state, signal):
        x = state.x - self.gain * (signal.h_in - signal.target_nats)
        return TemperatureState(x), x

    def x_in(self, state):
        return state.x


@dataclasses.dataclass(frozen=True)
class Overpromises:
    """Claims a highest priority, and passes it."""

    pi_max: float = 1.0

    def init(self, signal):
        return ()

    def update(self, state, signal):
        return state, signal.wait_s * 0.0 + 2.0 * self.pi_max


PRINTED = {
    "prop-1": CORRECTED,
    "prop-1-gain": CORRECTED,
    "law-direction": CORRECTED,
    "linearisation": CORRECTED,
    "equilibrium": CORRECTED,
    "oscillations": CORRECTED,
    "prop-2": CORRECTED,
    "prop-3": CORRECTED,
    "thm-1": HOLDS,
    "small-gain": CORRECTED,
    "corollary": CORRECTED,
    "assumption-3": CORRECTED,
    "thm-a1": CORRECTED,
    "eq-5": HOLDS,
    "lipschitz": HOLDS,
    "design-rule": REFUTED,
    "remark-a5": CORRECTED,
    "clipping": HOLDS,
    "estimator-lower": HOLDS,
    "estimator-upper": HOLDS,
    "estimator-order-k": CORRECTED,
    "tau-irreversible": REFUTED,
    "tau-information": REFUTED,
    "tau-objective": REFUTED,
    "which-entropy": CORRECTED,
    "epistemic": REFUTED,
    "generalises": REFUTED,
    "entropy-variance": CORRECTED,
}


@pytest.mark.parametrize("key", PRINTED)
def test_the_paper_as_printed_is_ruled_on(key):
    assert judgement(key).ruling is PRINTED[key], judgement(key).because


def falling() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.linspace(4.0, 0.0, n) for n in rng.permutation(np.arange(30, 90))]


def same_tau() -> list[np.ndarray]:
    # as many nats, whatever the length
    return [
        np.concatenate([[0.0], np.full(n - 2, 2.0), [1.0 - 0.01 * (n % 7)]]) for n in range(9, 60)
    ]


COPY = (np.full(4, 0.25), np.eye(4))  # the second token is the first: dH is what it tells
OTHERWISE = {  # a doctored law, plant or recording, and what must then be said
    "prop-1 with the minus sign": (contraction.prop_1, {"law": minus}, HOLDS),
    "prop-1 that no sign repairs": (contraction.prop_1, {"repair": printed}, REFUTED),
    "prop-1-gain with a small one": (
        contraction.enough_gain,
        {"repair": lambda _: EntropyFeedback(x_max=math.log(6.0))},
        HOLDS,
    ),
    "law-direction with the minus sign": (contraction.direction, {"law": minus}, HOLDS),
    "linearisation in T": (contraction.linearisation, {"law": AsLinearised}, HOLDS),
    "linearisation of neither": (contraction.linearisation, {"law": minus}, REFUTED),
    "oscillations with the minus sign": (contraction.suppresses, {"law": served}, HOLDS),
    "prop-2 with a floor": (service.prop_2, {"law": EntropyPriority()}, HOLDS),
    "prop-2 that nothing repairs": (
        service.prop_2,
        {"repair": Overpromises()},
        REFUTED,
    ),
    "prop-3 first come first served": (service.prop_3, {"law": Fcfs()}, HOLDS),
    "prop-3 repaired by the printed": (service.prop_3, {"repair": SeedPriority()}, REFUTED),
    "thm-1 without clips": (theory.theorem_1, {"law": lambda _: Unstable()}, REFUTED),
    "small-gain without coupling": (theory.small_gain, {"most": 0.0}, HOLDS),
    "corollary with the minus sign": (theory.corollary, {"law": served}, HOLDS),
    "lipschitz with a small L": (
        robustness.lipschitz,
        {"limit": lambda n_max: 0.1 * n_max},
        REFUTED,
    ),
    "assumption-3 of a falling entropy": (robustness.assumption_3, {"sign": -1.0}, HOLDS),
    "thm-a1 of a law that stands still": (
        robustness.theorem,
        {"law": lambda _: FixedTemperature()},
        CORRECTED,
    ),
    "thm-a1 without repair": (robustness.theorem, {"repair": printed}, REFUTED),
    "eq-5 of a faster law": (robustness.increments, {"law": lambda g: printed(10.0 * g)}, REFUTED),
    "design-rule with a perfect sensor": (remarks.design_rule, {"noise_nats": 0.0}, HOLDS),
    "clipping without clips": (remarks.clipping, {"law": lambda _: Unstable()}, REFUTED),
    "tau of a falling entropy": (clock.irreversible, {"paths": falling()}, HOLDS),
    "tau of a copy": (clock.information, {"chains": [COPY]}, HOLDS),
    "tau that ignores length": (clock.token_count, {"paths": same_tau()}, HOLDS),
    "tau-objective without swings": (efficiency.objective, {"cold": 0.8, "hot": 0.8}, HOLDS),
    "cost-units of one unit": (efficiency.units, {"same": True}, HOLDS),
    "resolved sequences": (efficiency.resolved, {"paths": falling()}, HOLDS),
    "resolution of falling entropies": (efficiency.toward_resolution, {"paths": falling()}, HOLDS),
    "lower bound from above": (
        estimators.lower_bound,
        {"estimate": lambda top: interval(top).high},
        REFUTED,
    ),
    "upper bound from below": (estimators.upper_bound, {"estimate": truncated}, REFUTED),
    "order-k of the truncated": (estimators.order_k, {"estimate": truncated}, HOLDS),
    "which-entropy at T": (calibration.which_entropy, {"law": EntropyFeedback()}, HOLDS),
    "overconfidence that is none": (calibration.overconfidence, {"sharpen": 0.8}, REFUTED),
    "epistemic of one ensemble": (
        calibration.epistemic,
        {"ensembles": calibration.SAME_TOKEN_ENTROPY[:1]},
        HOLDS,
    ),
    "per-token by a fixed T": (micro.per_token, {"law": FixedTemperature()}, HOLDS),
    "shared T that may miss": (micro.shared, {"most_nats": 5.0}, HOLDS),
    "generalises the whole nucleus": (micro.generalises, {"p": 1.0}, HOLDS),
    "order by one way only": (micro.order, {"second": micro._heat_then_cut}, HOLDS),
    "variance under Newton": (steadiness.variance, {"law": FeedforwardNewton()}, HOLDS),
    "collapse rate out of reach": (steadiness.collapse_rate, {"cut": (0.9, 0.95)}, UNTESTABLE),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_other_evidence_gives_another_ruling(case):
    judge, doctored, expected = OTHERWISE[case]
    found = judge(context(), **doctored)
    assert found.ruling is expected, found.because


def test_drifting_logits_and_late_feedback_are_judged_by_the_recording():
    assert remarks.slowly_varying(context(), slow=10.0).ruling is CORRECTED
    assert "not slow" in remarks.slowly_varying(context()).because
    assert steadiness.late_feedback(context()).numbers["correlation"] < 1.0 / 3.0


def test_every_ruling_here_has_finite_numbers_and_a_short_reason():
    for claim in CLAIMS:
        found = judgement(claim.key)
        assert all(math.isfinite(value) for value in found.numbers.values()), claim.key
        assert len(found.because) < 520, claim.key
        assert claim.command.startswith("entropic "), claim.key


def test_judgements_repeat_and_do_not_hang_on_the_seed():
    for judge in (contraction.prop_1, estimators.order_k, remarks.clipping):
        assert judge(context()) == judge(context())
        assert judge(context()).ruling is judge(context(7)).ruling


def test_the_flaws_of_theory_estimators_and_sampling_are_covered():
    covered = {flaw for claim in CLAIMS for flaw in claim.flaws}
    assert covered == {f"F{n}" for n in MINE}
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)


def test_a_corrected_statement_that_fails_is_not_repeated():
    found = ruled(holds=False, because="it breaks", corrected="it does not", repaired=False)
    assert found.ruling is REFUTED
    assert found.corrected == ""


def test_shares_are_rounded_to_all_or_none_only_when_they_are():
    assert [pct(x) for x in (0.0, 1e-5, 0.5, 0.9999, 1.0)] == [
        "0 %", "under 0.1 %", "50 %", "over 99.9 %", "100 %",
    ]  # fmt: skip
    assert fig(0.12345) == "0.123"
