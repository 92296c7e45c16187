"""Importers of LLMServingSim's and DistServe's files: the real ones where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traces.profile import Profile
from traces.profiles import find_profile
from traces.profiles_distserve import import_distserve
from traces.profiles_import import Wanted, imported
from traces.profiles_servingsim import composed_steps, read_meta, resolved_limits, skew_share
from traces.profiles_shapes import SHAPES

NOW = "2026-01-01T00:00:00+00:00"
LLAMA = SHAPES["Llama-3.1-8B"]


def golden(data_dir: Path, gpu: str) -> Path:
    return data_dir / "golden" / gpu / "Llama-3.1-8B"


@pytest.mark.parametrize(
    ("gpu", "wanted", "bandwidth"),
    [("RTX4090", {}, 1.008e12), ("RTXPRO6000", {"max_seqs": 128, "token_budget": 2048}, 1.597e12)],
)
def test_a_servingsim_profile_gives_the_law_we_ship(data_dir, gpu, wanted, bandwidth):
    folder = golden(data_dir, gpu)
    meta = folder / "run" / "meta.json" if gpu == "RTX4090" else None
    request = Wanted(
        origin="servingsim",
        model="Llama-3.1-8B",
        tables=folder / "profile",
        engine=meta,
        **wanted,
    )
    found = imported(request, created=NOW)
    kept = find_profile("Llama-3.1-8B", found.device)
    for name, value in kept.step_law.items():
        assert found.step_law[name] == pytest.approx(value, rel=1e-6), name
    assert found.limits == kept.limits
    read_rate = LLAMA.kv_bytes_per_token() / found.law.per_kv_token_s
    assert 0.8 < read_rate / bandwidth < 1.0
    assert 0.02 < found.law.per_skewed_kv_token_s / found.law.per_kv_token_s < 0.08
    assert found.fit_error["decode_mean_abs_pct"] < 3.0


def test_servingsim_limits_are_those_the_engine_resolved(data_dir):
    limits = resolved_limits(golden(data_dir, "RTX4090") / "run" / "meta.json", LLAMA)
    assert limits["n_pages"] == 2588
    assert (limits["max_seqs"], limits["token_budget"], limits["page_tokens"]) == (256, 2048, 16)


def test_steps_beyond_the_pool_are_left_out(data_dir):
    folder = golden(data_dir, "RTX4090") / "profile" / "tp1"
    table = composed_steps(folder, LLAMA, pool_tokens=8192)
    assert table.kv_tokens_read.max() <= 8192
    assert all(mask.any() for mask in table.kinds().values())


def test_distserve_laws_come_back_within_their_own_kink(data_dir):
    path = data_dir / "golden" / "distserve" / "profiler-a100-80g.vllm.json"
    limits = {"max_seqs": 95, "token_budget": 2048, "n_pages": 4134, "max_context": 2048}
    found = import_distserve(
        path,
        "facebook/opt-13b",
        tp=1,
        limits={**limits, "page_tokens": 16},
        limits_estimated=True,
        created=NOW,
    )
    for batch, context in ((1, 512), (16, 256), (64, 128)):
        theirs = 23.475041 + 0.00059293447 * batch * context + 0.06072686 * batch
        assert found.law.step_s(batch, batch * context, 0, 0) * 1e3 == pytest.approx(
            theirs, rel=0.06
        )
    theirs = 22.052204 + 0.1405092387 * 1024 + 8.076584822e-06 * 1024**2
    assert found.law.step_s(0, 0, 1024, 1024**2) * 1e3 == pytest.approx(theirs, rel=0.01)
    assert found.backend == "vllm"


SKEW = "regime,t_mean_us,t_max_us,t_skew_us\n"


def test_skew_is_the_slope_of_the_excess(tmp_path):
    path = tmp_path / "skew.csv"
    path.write_text(SKEW + "pure,10,20,11\npure,10,30,12\nmixed,10,20,20\n")
    assert skew_share(path) == pytest.approx(0.1)
    path.write_text(SKEW + "pure,10,20,9\n")
    assert skew_share(path) == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column regime: is missing"),
        ("regime,t_mean_us,t_max_us\npure,1,2\n", "column t_skew_us: is missing"),
        (SKEW, "must hold a row"),
        (SKEW + "pure,1,two,3\n", "must hold numbers"),
        (SKEW + "pure,1\n", "must hold numbers"),
        (SKEW + "pure,5,5,5\n", "must hold a batch"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, text, message):
    path = tmp_path / "skew.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        skew_share(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_meta_file_without_a_field_is_named(tmp_path):
    path = tmp_path / "meta.yaml"
    path.write_text("gpu: G\nprofiled_at: '2026'\n")
    with pytest.raises(ValueError, match="vllm_version: is missing"):
        read_meta(path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"kv_cache": {}, "engine_kwargs": {}}', "x"])
def test_a_run_without_limits_is_named(tmp_path, text):
    path = tmp_path / "meta.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="cannot be read as a vLLM run's limits"):
        resolved_limits(path, LLAMA)


DISTSERVE = {
    "prefill": [10.0, 0.1, 0.0],
    "decoding_smallbs": [10.0, 1e-4, 1e-2],
    "decoding_largebs": [10.0, 1e-4, 1e-2],
    "decoding_large_small_bs_threshold": 95,
}


def from_distserve(path: Path, **changes: object) -> Profile:
    wanted = {"model": "m", "tables": path, "pages": 4000, **changes}
    return imported(Wanted(origin="distserve", **wanted), created=NOW)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (DISTSERVE, {"model": "other"}, "model must be one of m; got 'other'"),
        (DISTSERVE, {"tp": 2}, "tp of m must be one of 1; got 2"),
        (DISTSERVE, {"pages": None}, "--pages must be given"),
        (DISTSERVE, {"tables": None}, "--tables must be given"),
        (DISTSERVE | {"prefill": [1.0, 2.0]}, {}, "prefill: must be three numbers"),
        (DISTSERVE | {"prefill": [1.0, "x", 2.0]}, {}, "prefill: must be three numbers"),
        (DISTSERVE | {"decoding_large_small_bs_threshold": "x"}, {}, "threshold: must be a number"),
        (DISTSERVE | {"decoding_smallbs": [-50.0, 0.0, 0.0]}, {}, "step times must be > 0"),
    ],
)
def test_distserve_coefficients_that_cannot_be_used_are_named(tmp_path, row, changes, message):
    path = tmp_path / "profiler.json"
    path.write_text(json.dumps({"org/m": {"1": row}}))
    with pytest.raises(ValueError, match=message):
        from_distserve(path, **changes)


def test_distserve_without_a_kink_comes_back_exactly(tmp_path):
    path = tmp_path / "profiler.json"
    path.write_text(json.dumps({"org/m": {"1": DISTSERVE}}))
    found = from_distserve(path)
    assert found.law.base_s == pytest.approx(10e-3)
    assert found.law.per_prompt_token_s == pytest.approx(1e-4)
    assert found.fit_error["held_out_max_abs_pct"] == pytest.approx(0.0, abs=1e-6)
