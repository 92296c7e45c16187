"""A profile of the live engine: staged steps, the passes over them, and the law fitted to them."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, replace
from pathlib import Path

import numpy as np
import pytest

from backend.profile import Measured, ProfileOptions, run_profile
from backend.profile_fit import fit, seconds
from backend.profile_grid import stages
from backend.profile_points import CLIP, Point, points_of, points_table
from backend.profile_rig import Rig
from backend.profile_stage import Stage, Step
from backend.profile_store import PassStore, store_path
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from tests.backend.tiny import tiny_model
from traces.profile import read_profile

LIMITS = EngineLimits(max_seqs=5, token_budget=64, n_pages=200, max_context=512)
LAW = StepLaw(
    base_s=2e-2,
    per_decode_s=4e-4,
    per_kv_token_s=2e-6,
    per_prompt_token_s=1e-3,
    per_prompt_square_s=3e-7,
    floor_s=2e-2,
    per_skewed_kv_token_s=1e-8,
    prompt_overlap_s=6e-3,
    per_prompt_context_s=5e-6,
    per_mixed_decode_s=2e-3,
    per_mixed_kv_token_s=4e-7,
    per_scored_unit_s=6e-8,
    pruned_step_s=3e-3,
    per_knee_decode_s=9e-4,
    decode_knee=6.0,
)


@pytest.fixture(scope="module")
def rig():
    with Rig(tiny_model(), LIMITS) as made:
        made.fill([i % 250 for i in range(400)])
        yield made


@pytest.mark.parametrize(
    ("stage", "features"),
    [
        (Stage((100,) * 3, steps=2), [(3, 303, 0, 0, 101, 0), (3, 306, 0, 0, 102, 0)]),
        (Stage((100, 10), steps=1), [(2, 112, 0, 0, 101, 0)]),
        (Stage(chunk=40), [(0, 0, 40, 1600, 0, 0)]),
        (Stage(chunk=20, start=48), [(0, 0, 20, 20 * 116, 0, 0)]),
        (Stage((100,) * 2, chunk=30), [(2, 202, 30, 900, 101, 0)]),
    ],
)
def test_a_stage_times_the_very_steps_it_names(rig: Rig, stage: Stage, features: list):
    steps = rig.time(stage)
    assert [astuple(step)[:6] for step in steps] == features
    for step in steps:
        assert 0.0 < step.executed_s < step.seconds < 5.0


def test_rows_beside_a_prompt_that_goes_on_run_a_little_past_their_context(rig: Rig):
    (step,) = rig.time(Stage((100,) * 3, chunk=20, start=60))
    assert (step.n_decode, step.prompt_tokens, step.prompt_squares) == (3, 20, 20 * 140)
    assert 303 <= step.kv_tokens_read < 303 + 30


def test_a_pruned_stage_scores_its_pages_and_reads_fewer(rig: Rig):
    dense, pruned = (rig.time(Stage((200,) * 2, share, steps=3)) for share in (1.0, 0.5))
    assert {step.kind for step in dense} == {"decode"}
    assert {step.kind for step in pruned} == {"sparse"}
    assert all(step.pages_scored == 2 * 13 * 4 for step in pruned)  # two rows, layers x heads
    assert all(p.kv_tokens_read < d.kv_tokens_read for p, d in zip(pruned, dense, strict=True))


def test_an_engine_fault_ends_a_stage_with_its_cause(monkeypatch: pytest.MonkeyPatch):
    with Rig(tiny_model(), LIMITS) as broken:

        def fail(*_: object) -> None:
            raise RuntimeError("no such kernel")

        monkeypatch.setattr("backend.executor.forward", fail)
        with pytest.raises(RuntimeError, match="no such kernel"):
            broken.time(Stage((20,)))


def grid(**changes: object) -> list[Stage]:
    given = {
        "max_seqs": 16,
        "max_context": 2048,
        "token_budget": 512,
        "pool_tokens": 17 * 2064,
        "coverages": (0.8, 0.95),
    }
    return stages(**{**given, **changes})


def test_the_grid_reaches_every_end_of_the_range():
    made = grid()
    assert max(len(stage.contexts) for stage in made) == 16
    assert max(len(stage.contexts) + stage.chunk for stage in made) == 512
    assert max(max(stage.contexts, default=0) for stage in made) > 1950
    assert max(stage.start + stage.chunk for stage in made) > 1950
    assert {stage.coverage for stage in made} == {1.0, 0.8, 0.95}
    assert any(len(set(stage.contexts)) > 1 for stage in made)
    assert len(made) == len(set(made)) < 150


@pytest.mark.parametrize(
    "changes",
    [
        {"pool_tokens": 4000},
        {"max_seqs": 1, "token_budget": 16},
        {"max_context": 128, "token_budget": 128, "max_seqs": 4},
        {"max_seqs": 64, "max_context": 6144},
        {"coverages": ()},
    ],
)
def test_every_stage_of_any_grid_fits_its_range_and_pool(changes: dict):
    made, limits = grid(**changes), {"max_seqs": 16, "max_context": 2048, "token_budget": 512}
    limits = {**limits, "pool_tokens": 17 * 2064, **changes}
    assert made
    for stage in made:
        assert len(stage.contexts) <= limits["max_seqs"]
        assert len(stage.contexts) + stage.chunk <= limits["token_budget"] or not stage.chunk
        assert max((*stage.contexts, stage.start + stage.chunk)) <= limits["max_context"]
        assert sum(stage.contexts) + stage.start + stage.chunk <= limits["pool_tokens"]


def made_points(law: StepLaw, noise: float = 0.0) -> list[Point]:
    rng, found = np.random.default_rng(0), []
    for index, stage in enumerate(grid()):
        rows, kv = len(stage.contexts), float(sum(stage.contexts))
        share = 1.0 if stage.coverage == 1.0 else rng.uniform(0.1, 0.7)
        scored = 90.0 * kv / 16 if share < 1.0 else 0.0
        squares = stage.chunk * (2 * stage.start + stage.chunk)
        longest = share * max(stage.contexts, default=0)
        took = law.step_s(rows, share * kv, stage.chunk, squares, longest, scored)
        step = Step(rows, share * kv, stage.chunk, squares, longest, int(scored), took, took)
        found.append(replace(points_of([[[step]]])[0], stage=index))
    jitter = 1.0 + noise * rng.standard_normal(len(found))
    return [replace(p, seconds=p.seconds * j) for p, j in zip(found, jitter, strict=True)]


def test_a_fit_finds_the_law_that_made_the_steps():
    points = made_points(LAW)
    found = fit(points, np.random.default_rng(0))
    table = points_table(points)
    assert seconds(found.law, table) == pytest.approx(table["seconds"], rel=2e-3)
    assert found.law.decode_knee == 6.0
    for name in ("base_s", "per_kv_token_s", "per_prompt_token_s", "per_scored_unit_s"):
        assert getattr(found.law, name) == pytest.approx(getattr(LAW, name), rel=0.02)
    assert found.fit_error["held_out_mean_abs_pct"] < 0.3


def test_a_prompt_may_cost_more_than_the_base_hides():
    law = replace(LAW, prompt_overlap_s=0.0, prompt_step_s=9e-3, floor_s=0.0)
    found = fit(made_points(law), np.random.default_rng(0)).law
    assert found.prompt_step_s == pytest.approx(9e-3, rel=0.02)
    assert found.prompt_overlap_s == 0.0


def test_the_held_out_error_is_about_the_noise_and_each_kind_has_its_own():
    found = fit(made_points(LAW, noise=0.05), np.random.default_rng(0)).fit_error
    assert 3.0 < found["held_out_mean_abs_pct"] < 6.0  # the mean of |N(0, 5 %)| is 4 %
    for kind in ("decode", "sparse", "prefill", "mixed"):
        assert found[f"{kind}_mean_abs_pct"] <= found[f"{kind}_max_abs_pct"]


def test_a_point_is_the_mean_of_its_repeats_and_an_outlier_counts_as_three_medians():
    steps = [Step(1, 10.0, 0, 0, 10.0, 0, took, took) for took in (1.0, 1.0, 1.0, 9.0)]
    slow, steady = points_of([[[step], [replace(step, seconds=1.0)]] for step in steps])
    assert slow.seconds == pytest.approx((3 + CLIP) / 4)
    assert steady.seconds == 1.0


def test_a_machine_of_two_speeds_is_priced_between_them():
    speeds = [0.8, 0.8, 0.8, 0.8, 1.1, 1.1, 1.1]
    passes = [[[Step(1, 10.0, 0, 0, 10.0, 0, took, took)]] for took in speeds]
    assert points_of(passes)[0].seconds == pytest.approx(np.mean(speeds))


OPTIONS = ProfileOptions(repeats=2, max_seqs=3, max_context=128, token_budget=32, coverages=(0.5,))


def profile(store: PassStore, **changes: object) -> Measured:
    return run_profile(
        replace(OPTIONS, **changes),
        lambda header: store,
        model=tiny_model(),
        commit="abc",
        created="2026-01-01T00:00:00+00:00",
        versions={"torch": "0"},
    )


def test_a_profile_is_measured_written_and_read_back(tmp_path: Path):
    store = PassStore(tmp_path / "passes.jsonl", {})
    measured = profile(store)
    out = tmp_path / "p.json"
    measured.write(out)
    found = read_profile(out)
    assert asdict(found) == asdict(measured.profile)
    assert found.law.step_s(2, 200, 0, 0) > 0.0
    assert found.ranges["n_decode"] == (0.0, 3.0)
    assert found.ranges["pages_scored"][1] > 0.0
    assert (tmp_path / "p_residuals.png").read_bytes().startswith(b"\x89PNG")
    assert len(store.passes) == 2


def test_passes_that_were_taken_are_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = PassStore(tmp_path / "passes.jsonl", {"seed": 0})
    first = profile(store)
    with store_path(tmp_path / "x").with_name("passes.jsonl").open("a") as file:
        file.write("[[[1, 2")  # killed while it wrote the third
    again = PassStore(tmp_path / "passes.jsonl", {"seed": 0})
    monkeypatch.setattr("backend.profile.Rig", None)  # nothing is timed any more
    assert profile(again).profile == first.profile


def test_passes_of_another_measurement_are_refused_by_field(tmp_path: Path):
    path = tmp_path / "passes.jsonl"
    PassStore(path, {"model": "a", "seed": 0})
    with pytest.raises(ValueError, match="seed: passes were measured with 0, not 1; remove it"):
        PassStore(path, {"model": "a", "seed": 1})
    path.write_text("not json\n")
    with pytest.raises(ValueError, match="cannot be read"):
        PassStore(path, {})
    assert json.dumps({}) not in path.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats must be >= 1; got repeats=0"),
        ({"coverages": (0.5, 1.0)}, r"coverages must lie in \(0, 1\)"),
        ({"token_budget": 4096}, "token_budget must be"),
        ({"token_budget": 16, "max_seqs": 16}, "token_budget must be"),
    ],
)
def test_options_out_of_range_are_refused_by_name(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ProfileOptions(**changes)


def test_a_context_beyond_the_models_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="max_context must be <= 512, the model's"):
        profile(PassStore(tmp_path / "p", {}), max_context=1024)
