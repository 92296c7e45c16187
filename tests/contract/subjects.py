"""Every law the contract is run against, with the signals it reads and its promised range."""

from __future__ import annotations

import numpy as np

from controllers.compose import Chain, Delay, Gated, RateLimit, Shadow, delayed, rate_limited
from controllers.core import Law, LoadSignal, TokenSignal
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.ops import Array
from controllers.presets import PRESETS, shadowed
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.schedulers import (
    LearnedRank,
    ShortestJob,
    SkipJoinMlfq,
    SrptOracle,
    UserPriority,
    Vtc,
)
from controllers.schedulers.user import LAST
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    X_MAX,
    X_MIN,
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from reports.verify.contract.signals import load_signals, token_signals
from reports.verify.contract.subject import Bounds, Subject


def _user(signal: TokenSignal) -> tuple[Array, Array]:
    return signal.x_user, signal.x_user


def _temperature(signal: TokenSignal) -> tuple[Array, Array]:
    low = np.minimum(np.float32(X_MIN), np.minimum(signal.x_cap, signal.x_user))
    return low, np.minimum(np.maximum(np.float32(X_MAX), signal.x_user), signal.x_cap)


def _coverage(signal: TokenSignal) -> tuple[Array, Array]:
    one = np.ones_like(signal.h_cal)
    return np.where(signal.enabled > 0, np.float32(0.8), one), one


def _age(signal: LoadSignal) -> tuple[Array, Array]:
    return signal.age_s, signal.age_s


def _aged(signal: LoadSignal) -> tuple[Array, Array]:
    law = EntropyPriority()
    wait = np.float32(law.kappa) * signal.wait_s
    return wait, wait + np.float32(law.pi_max)


def _ratio(signal: LoadSignal) -> tuple[Array, Array]:
    most = np.abs(signal.collapse_nats) * np.float32(1.001e6)
    return -most, most


def _within(low: float, high: float) -> Bounds:
    return lambda signal: (np.full_like(signal.age_s, low), np.full_like(signal.age_s, high))


def _client(signal: LoadSignal) -> tuple[Array, Array]:
    return -signal.client_service, -signal.client_service


DENSE = FixedCoverage()
_TEMPERATURE: dict[str, Law] = {
    "feedback": EntropyFeedback(),
    "seed_literal": SeedLiteral(),
    "newton": FeedforwardNewton(),
    "plain_feedback": EntropyFeedback(c=float("inf"), rate=float("inf")),
    "smoothed": SmoothedFeedback(),
    "plain_smoothed": SmoothedFeedback(beta=0.5, c=float("inf"), rate=float("inf")),
    "gated_smoothed": Gated(law=SmoothedFeedback()),
    "delayed_seed": delayed(SeedLiteral(), 1),
    "delayed_3": delayed(EntropyFeedback(), 3),
    "rate_limited": rate_limited(FeedforwardNewton(), 0.05),
    "chain": Chain(law=FeedforwardNewton(), filters=(RateLimit(rate=0.1), Delay(steps=2))),
    "gated": Gated(law=EntropyFeedback()),
    "gated_delayed": Gated(law=delayed(EntropyFeedback(), 3)),
    "shadow": Shadow(applied=FixedTemperature(), observed=Gated(law=EntropyFeedback())),
    "shadow_bare": Shadow(applied=FixedTemperature(), observed=EntropyFeedback()),
    **{f"preset_{name}": preset.temperature for name, preset in PRESETS.items()},
    "preset_best_shadowed": shadowed(PRESETS["best"]).temperature,
}
_COVERAGE: dict[str, Law] = {
    "entropy_coverage": EntropyCoverage(),
    "entropy_coverage_to_dense": EntropyCoverage(p_min=0.8, p_max=1.0, dwell=1, rate=0.1),
    "seed_coverage": SeedCoverage(),
    "gated_coverage": Gated(law=SeedCoverage(), fallback=DENSE),
    "delayed_coverage": Gated(law=delayed(EntropyCoverage(), 2, DENSE), fallback=DENSE),
    "shadow_coverage": Shadow(applied=DENSE, observed=EntropyCoverage()),
}

_PEERS: dict[str, tuple[Law, Bounds]] = {
    "user_priority": (UserPriority(), _within(-LAST, LAST)),
    "shortest_job": (ShortestJob(), _within(-LAST, 0.0)),
    "learned_rank": (LearnedRank(), _within(-(2.0**23), 2.0**23)),
    "srpt_oracle": (SrptOracle(), _within(-LAST, 0.0)),
    "skip_join_mlfq": (SkipJoinMlfq(), _within(-15.0, 0.0)),
    "vtc": (Vtc(), _client),
}

SUBJECTS: dict[str, Subject] = {
    "fixed": Subject(FixedTemperature(), token_signals, _user),
    **{name: Subject(law, token_signals, _temperature) for name, law in _TEMPERATURE.items()},
    "fixed_coverage": Subject(FixedCoverage(coverage=0.9), token_signals, _coverage),
    **{name: Subject(law, token_signals, _coverage) for name, law in _COVERAGE.items()},
    "fcfs": Subject(Fcfs(), load_signals, _age),
    "entropy_priority": Subject(EntropyPriority(), load_signals, _aged),
    "seed_priority": Subject(SeedPriority(), load_signals, _ratio),
    **{name: Subject(law, load_signals, bounds) for name, (law, bounds) in _PEERS.items()},
}
