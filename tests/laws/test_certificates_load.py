"""Certificates of coverage and priority laws, and what every certificate must be."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers import certificates as proofs
from controllers.certificates import Certificate, Certified
from controllers.certificates.coverage import settle_steps
from controllers.certificates.wrapping import issue
from controllers.compose import Gated
from controllers.core import LoadSignal, TokenSignal, fingerprint, replay
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.peers import PEERS
from controllers.presets import PRESETS
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.schedulers import ShortestJob
from controllers.temperature import EntropyFeedback, FixedTemperature, TemperatureState
from tests.strategies import Float64, load_signal, token_signal

TEMPERATURE = (
    proofs.stability,
    proofs.settles,
    proofs.delay,
    lambda law: proofs.iss(law, 1.0, 0.1, 0.01),
    lambda law: proofs.variance(law, 5.0, 0.2),
    lambda law: proofs.saturates(law, 0.5),
    proofs.windup,
    proofs.cap,
    proofs.bypass,
)
COVERAGE = (
    proofs.coverage_monotone,
    proofs.coverage_direction,
    proofs.coverage_chatter,
    proofs.coverage_masked,
)
PRIORITY = (
    proofs.priority_urgency,
    proofs.priority_completion,
    proofs.priority_bounded,
    proofs.aging,
    lambda law: proofs.service_gap(
        law, n_active=9, slots=4, residence_steps=50, quantum_steps=16, step_s=0.01
    ),
)


def all_certificates() -> list[Certificate]:
    """Return every certificate of every preset."""
    found: list[Certificate | None] = []
    for preset in (*PRESETS.values(), *PEERS.values()):
        found += [f(preset.temperature) for f in TEMPERATURE]
        found += [f(preset.coverage) for f in COVERAGE]
        found += [f(preset.priority) for f in PRIORITY]
        found.append(proofs.finite_step(preset, np.full((2, 4), 3.0), h=1.5))
    return [proof for proof in found if proof is not None]


def test_every_certificate_survives_json() -> None:
    for proof in all_certificates():
        row = json.loads(proof.dumps())
        assert row == json.loads(json.dumps(proof.to_json()))
        assert (row["name"], row["kind"], row["holds"]) == (proof.name, proof.kind, proof.holds)
        assert all(isinstance(value, float | None) for value in row["constants"].values())


def test_every_certificate_cites_a_heading_of_the_readme() -> None:
    readme = Path(proofs.__file__).parents[1] / "README.md"
    headings = set(re.findall(r"^#+ (.+)$", readme.read_text(encoding="utf-8"), re.MULTILINE))
    cited = {proof.derivation for proof in all_certificates()}
    assert cited <= headings
    assert len(cited) >= 8


def test_a_certificate_names_the_law_as_the_user_holds_it() -> None:
    law = PRESETS["full"].temperature
    proof = proofs.stability(law)
    assert proof is not None
    assert proof.law == "Gated(EntropyFeedback)"
    assert proof.fingerprint == fingerprint(law)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A user's law, with its own word on stability."""

    gain: float = 0.1

    def certificates(self) -> tuple[Certificate, ...]:
        return (
            issue(
                self,
                "micro.stability",
                kind="sufficient",
                holds=True,
                statement="as its author says",
                assumptions=("its author's",),
                derivation="its author's",
                bound=1.0,
            ),
        )


def test_a_foreign_law_brings_its_certificates_or_has_none() -> None:
    law = Foreign()
    assert isinstance(law, Certified)
    proof = proofs.stability(law)
    assert proof is not None
    assert proof.law == "Foreign"
    for find in (*TEMPERATURE[1:], *COVERAGE, *PRIORITY):
        assert find(law) is None


class Stronger(EntropyFeedback):
    """Ours by its gains, and moves eight times as far."""

    def update(self, state: TemperatureState, signal: TokenSignal) -> tuple[TemperatureState, Any]:
        x = state.x + 8.0 * (EntropyFeedback.update(self, state, signal)[1] - state.x)
        return TemperatureState(x), x


class Upside(EntropyPriority):
    """Ours by its gains, in the opposite order."""

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Any]:
        return state, -EntropyPriority.update(self, state, signal)[1]


def test_a_class_that_replaces_our_code_has_none_of_our_proofs() -> None:
    for law in (Stronger(), Gated(law=Stronger())):
        assert all(find(law) is None for find in TEMPERATURE[:-1])
    assert all(find(Upside()) is None for find in PRIORITY)


def coverages(law: object, entropies: Float64) -> Float64:
    """Run a coverage law on entropies ``[t, B]``; return its commands, ``[t, B]``, float64."""
    lanes = entropies.shape[1]
    signals = [token_signal(lanes, h_cal=h) for h in entropies]
    return replay(law, signals)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "law",
    [
        EntropyCoverage(),
        EntropyCoverage(p_max=1.0, rate=0.002, dwell=3),
        EntropyCoverage(p_min=0.3, rate=0.05, dwell=1),
        FixedCoverage(coverage=0.9),
    ],
)
def test_coverage_changes_no_faster_and_no_further_than_certified(law: object) -> None:
    rng = np.random.default_rng(0)
    entropies = rng.choice([0.0, 0.5, 1.5, 4.0], (400, 50))
    path = coverages(law, entropies)
    proof = proofs.coverage_chatter(law)
    assert proof is not None
    changes = np.abs(np.diff(path, axis=0))
    assert changes.max() <= proof.bound + 1e-9
    for lane in changes.T:
        gaps = np.diff(np.flatnonzero(lane > 0.0))
        assert len(gaps) == 0 or gaps.min() >= proof.constants["dwell"]


def test_dense_coverage_may_jump_further_than_its_rate() -> None:
    law = EntropyCoverage(p_max=1.0, rate=0.002, dwell=1)
    path = coverages(law, np.concatenate([np.zeros((4, 1)), np.full((8, 1), 9.0)]))
    assert np.abs(np.diff(path, axis=0)).max() == pytest.approx(0.01)
    proof = proofs.coverage_chatter(law)
    assert proof is not None
    assert proof.bound == pytest.approx(0.01)


def test_a_masked_lane_reads_all_only_where_the_gate_falls_back_to_a_coverage() -> None:
    off = token_signal(enabled=0.0, h_cal=1.0)
    for law, reads_all in (
        (Gated(law=EntropyCoverage(), fallback=FixedCoverage(coverage=0.5)), True),
        (Gated(law=EntropyCoverage()), False),  # falls back to ln T, here 0
    ):
        assert bool(law.update(law.init(off), off)[1][0] == 1.0) is reads_all
        assert (proofs.coverage_masked(law) is not None) is reads_all


@pytest.mark.parametrize(("m1", "m2"), [(0.0, 0.1), (0.1, 1.0), (0.0, 3.0)])
def test_certified_coverage_rises_with_entropy_and_with_the_margin(m1: float, m2: float) -> None:
    for law in (EntropyCoverage(margin=m1), SeedCoverage(margin=m1)):
        entropies = np.tile(np.linspace(0.0, 6.0, 200), (settle_steps(law), 1))
        steady = coverages(law, entropies)[-1]
        unsure = coverages(replace(law, margin=m2), entropies)[-1]
        rises, helps = proofs.coverage_monotone(law), proofs.coverage_direction(law)
        assert rises is not None
        assert helps is not None
        assert rises.holds
        assert np.all(np.diff(steady) >= 0.0)
        assert helps.holds is isinstance(law, EntropyCoverage)
        assert not helps.holds or np.all(unsure >= steady)


def test_the_printed_floor_prunes_more_the_less_sure_it_is() -> None:
    entropies = np.full((4, 1), 1.5)
    sure, unsure = (coverages(SeedCoverage(margin=m), entropies)[-1, 0] for m in (0.0, 1.0))
    assert unsure < sure - 0.01


def test_p8_urgency_and_completion_are_monotone_where_certified() -> None:
    rng = np.random.default_rng(0)
    fields = {"collapse_nats": rng.uniform(0, 3, 500), "cost_s": rng.uniform(0, 9, 500)}
    slack, done = rng.uniform(-5, 15, (2, 500)), rng.uniform(0, 1, (2, 500))
    for law in (EntropyPriority(), SeedPriority(), Fcfs()):
        for name, proof, values in (
            ("slack_s", proofs.priority_urgency(law), -np.sort(slack, axis=0)),
            ("completion", proofs.priority_completion(law), np.sort(done, axis=0)),
        ):
            assert proof is not None
            low, high = (score(law, **fields, **{name: value}) for value in values)
            assert bool(np.all(high >= low)) is proof.holds


def score(law: Fcfs | EntropyPriority | SeedPriority, **fields: object) -> Float64:
    signal = load_signal(500, **fields)  # pyright: ignore[reportArgumentType]
    return law.update(law.init(signal), signal)[1]


def test_no_fresh_request_outranks_after_the_certified_wait_and_one_does_before() -> None:
    law = EntropyPriority(pi_max=4.0, kappa=0.5)
    proof = proofs.aging(law)
    assert proof is not None
    assert (proof.kind, proof.bound) == ("exact", 8.0)
    fresh = score(law, collapse_nats=1e6)[0]
    before = score(law, collapse_nats=0.0, wait_s=7.99)[0]
    after = score(law, collapse_nats=0.0, wait_s=8.0)[0]
    assert before < fresh <= after


def test_laws_that_do_not_age_are_certified_to_starve() -> None:
    for law in (SeedPriority(), ShortestJob()):
        proof = proofs.aging(law)
        assert proof is not None
        assert (proof.holds, proof.kind, proof.bound) == (False, "exact", np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ageless:
    """Claims a bound on the wait, and has no rate of aging."""

    kappa: float = 0.0
    max_wait_s: float = 60.0


def test_a_claimed_wait_without_aging_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"needs kappa > 0.*Ageless"):
        proofs.aging(Ageless())
    with pytest.raises(ValueError, match="kappa"):
        EntropyPriority(kappa=0.0)


def test_the_score_at_wait_zero_is_bounded_as_certified() -> None:
    wild = {"collapse_nats": 10.0, "slack_s": -1e9, "cost_s": 0.0, "pages_needed": 0.0}
    for law in (EntropyPriority(), SeedPriority()):
        proof = proofs.priority_bounded(law)
        assert proof is not None
        assert 0.0 <= score(law, **wild)[0] <= proof.bound
    assert proofs.priority_bounded(FixedTemperature()) is None
