"""A small synthetic recording, and a cluster to serve it."""

from __future__ import annotations

import dataclasses

import pytest

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator import ClusterConfig, Residual, TraceModel
from traces.store import Trace
from traces.synth import SyntheticShape, synthetic_trace


@pytest.fixture(scope="session")
def trace() -> Trace:
    return synthetic_trace(SyntheticShape(), seed=7)


@pytest.fixture(scope="session")
def model(trace: Trace) -> TraceModel:
    return TraceModel.of(trace)


@pytest.fixture(scope="session")
def residual(trace: Trace) -> Residual:
    return Residual.fit(trace, seed=3)


@pytest.fixture(scope="session")
def step_law() -> StepLaw:
    return StepLaw(
        base_s=6e-3,
        per_decode_s=1e-5,
        per_kv_token_s=4e-8,
        per_prompt_token_s=2e-5,
        per_prompt_square_s=1e-9,
    )


class Configure:
    """Builds a cluster; what a test does not name is roomy."""

    def __init__(self, step_law: StepLaw) -> None:
        self._step_law = step_law

    def __call__(self, preset: str, **changes: object) -> ClusterConfig:
        limits = EngineLimits(max_seqs=8, token_budget=256, n_pages=400, max_context=512)
        whole = ClusterConfig(
            preset=dataclasses.replace(get_preset(preset), sparse_min_context=1),
            limits=limits,
            step_law=self._step_law,
            bytes_per_page_unit=4096,
        )
        return dataclasses.replace(whole, **changes)


@pytest.fixture(scope="session")
def configure(step_law: StepLaw) -> Configure:
    return Configure(step_law)
