"""A small scenario, its ablation and its load sweep, made once."""

from __future__ import annotations

import pytest

from reports.parts import Evidence
from reports.studies.ablation import Ablation, ablate
from reports.studies.load import LoadSweep, sweep
from simulator.scenario import Scenario, build
from traces.info import describe
from traces.profile import Profile
from traces.synth import SyntheticShape, synthetic_trace

PROFILE = Profile(
    device="made up for a test",
    model="made up",
    backend="none",
    dtype="bfloat16",
    commit="none",
    created="2000-01-01T00:00:00Z",
    versions={},
    ranges={},
    fit_error={},
    step_law={
        "base_s": 2e-2,
        "per_decode_s": 1e-3,
        "per_kv_token_s": 5e-5,
        "per_prompt_token_s": 1e-4,
        "per_prompt_square_s": 0.0,
        "floor_s": 0.0,
    },
    limits={
        "max_seqs": 4,
        "token_budget": 256,
        "n_pages": 400,
        "max_context": 1024,
        "page_tokens": 16,
    },
)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    # Prompts long enough for coverage control, which leaves contexts under 512 tokens dense.
    shape = SyntheticShape(n_requests=8, output_tokens=24, prompt_tokens=600)
    return build(synthetic_trace(shape, seed=2), PROFILE)


@pytest.fixture(scope="session")
def ablation(scenario: Scenario) -> Ablation:
    return ablate(scenario, seeds=range(2))


@pytest.fixture(scope="session")
def load(scenario: Scenario) -> LoadSweep:
    return sweep(scenario, seeds=range(2), loads=(0.3, 1.2), presets=("baseline", "attention"))


@pytest.fixture(scope="session")
def evidence(scenario: Scenario, ablation: Ablation, load: LoadSweep) -> Evidence:
    return Evidence(ablation=ablation, load=load, trace_info=describe(scenario.trace))
