"""A small trace and profile on disk, and the command line to run in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import entropic
from traces.profile import Profile, write_profile
from traces.synth import SyntheticShape, write_synthetic


class Cli:
    """Runs ``entropic`` in this process."""

    def __init__(self) -> None:
        self._runner = CliRunner()

    def __call__(self, *args: object) -> Result:
        words = [str(arg) for arg in args]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["entropic", *words])  # outputs say what made them
            return self._runner.invoke(entropic.app, words)

    def json(self, *args: object) -> dict[str, object]:
        done = self(*args, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cli() -> Cli:
    entropic._mount()
    return Cli()


@pytest.fixture(scope="session")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "small.parquet"
    write_synthetic(path, SyntheticShape(n_requests=9, output_tokens=20), seed=5)
    return path


@pytest.fixture(scope="session")
def profile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "profile.json"
    step_law = {
        "base_s": 5e-2,
        "per_decode_s": 1e-3,
        "per_kv_token_s": 5e-6,
        "per_prompt_token_s": 1e-3,
        "per_prompt_square_s": 1e-7,
        "floor_s": 0.0,
    }
    profile = Profile(
        device="made up for a test",
        model="made up",
        backend="none",
        dtype="float32",
        commit="none",
        created="2000-01-01T00:00:00Z",
        versions={},
        ranges={},
        fit_error={},
        step_law=step_law,
        limits={
            "max_seqs": 4,
            "token_budget": 64,
            "n_pages": 200,
            "max_context": 512,
            "page_tokens": 16,
        },
    )
    write_profile(path, profile)
    return path


@pytest.fixture(scope="session")
def inputs(trace_file: Path, profile_file: Path) -> tuple[object, ...]:
    return "--trace", trace_file, "--profile", profile_file


@pytest.fixture(scope="session")
def arrivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(11)
    times = np.cumsum(rng.exponential(1.0, 40))
    path = tmp_path_factory.mktemp("arrivals") / "hour.csv"
    rows = [f"{t:.3f},{rng.integers(10, 60)},{rng.integers(2, 12)}" for t in times]
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows) + "\n")
    return path
