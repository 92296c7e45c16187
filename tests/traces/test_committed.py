"""The committed recording is what its README says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from traces.prompts import load_prompts
from traces.store import Trace, read_trace

DATA = Path(__file__).parents[2] / "traces" / "data"
RECORDED = DATA / "smollm2_recorded.parquet"


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read_trace(RECORDED)


def test_recording_covers_the_classes_at_three_temperatures(trace: Trace) -> None:
    prompts = {r.prompt_id for r in trace.requests}
    assert len(prompts) >= 64
    assert len({r.task_class for r in trace.requests}) >= 5
    for prompt in prompts:
        temperatures = {r.temperature for r in trace.requests if r.prompt_id == prompt}
        assert len(temperatures) == 3, prompt


def test_long_prompts_have_two_to_six_thousand_tokens(trace: Trace) -> None:
    lengths = [r.prompt_tokens for r in trace.requests if r.task_class == "long"]
    assert min(lengths) > 2000
    assert max(lengths) < 6500


def test_requests_that_did_not_stop_have_128_tokens(trace: Trace) -> None:
    assert {r.output_tokens for r in trace.requests if r.finish_reason == "length"} == {128}


def test_committed_data_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) <= 10_000_000


def test_readme_names_the_command_and_every_prompt_with_its_hash(trace: Trace) -> None:
    text = (DATA / "README.md").read_text()
    assert trace.metadata["command"] in text
    assert trace.sha256 in text
    assert trace.metadata["weights_sha256"] in text
    for request in trace.requests:
        assert f"`{request.prompt_id}` {request.prompt_sha256[:12]}" in text


def test_pruned_subsample_says_what_the_residual_needs(trace: Trace) -> None:
    sampled = np.isfinite(trace.columns["kl_pruned"]).all(axis=1)
    assert sampled.sum() >= 200
    assert trace.columns["context"][sampled].min() >= 512


def test_recorded_prompts_are_the_public_ones(data_dir: Path, trace: Trace) -> None:
    import hashlib

    hashes = {
        p.prompt_id: hashlib.sha256(p.text.encode()).hexdigest()
        for p in load_prompts(data_dir, 14, 1)
    }
    assert hashes == {r.prompt_id: r.prompt_sha256 for r in trace.requests}
