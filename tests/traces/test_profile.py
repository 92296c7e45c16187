"""Device profiles: a round trip, and an error naming whatever is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from controllers.presets import get_preset
from controllers.steplaw import StepLaw
from traces.profile import ADDED, OPTIONAL, Profile, ProfileError, read_profile, write_profile

LAW = StepLaw(
    base_s=6e-3,
    per_decode_s=1e-5,
    per_kv_token_s=4e-8,
    per_prompt_token_s=2e-5,
    per_prompt_square_s=1e-10,
    floor_s=7e-3,
)


@pytest.fixture
def profile() -> Profile:
    return Profile(
        device="test device",
        model="test model",
        backend="torch",
        dtype="float32",
        commit="0" * 40,
        created="2026-01-01T00:00:00Z",
        versions={"torch": "2.13.0"},
        ranges={"n_decode": (1.0, 16.0), "kv_tokens_read": (16.0, 32_768.0)},
        fit_error={"mean_abs_pct": 1.5},
        step_law=LAW.to_json(),
        limits={"kv_pages": 2048, "page_tokens": 16},
    )


def test_a_profile_reads_back_equal_and_gives_its_law(tmp_path, profile):
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    assert read_profile(path) == profile
    assert read_profile(path).law == LAW
    assert [p.name for p in tmp_path.iterdir()] == ["profile.json"]


def test_a_profile_of_version_1_still_reads(tmp_path, profile):
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    document = {k: v for k, v in json.loads(path.read_text()).items() if k not in ADDED}
    path.write_text(json.dumps(document | {"version": 1}))
    old = read_profile(path)
    assert old == profile
    assert (old.kind, old.gpus, old.limits_estimated) == ("measured", 1, False)
    path.write_text(json.dumps(document | {"version": 1, "gpus": 2}))
    with pytest.raises(ProfileError, match="gpus: is not a profile field"):
        read_profile(path)


def test_a_profile_without_a_sparse_threshold_leaves_presets_alone(tmp_path, profile):
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    assert "sparse_from_tokens" not in path.read_text()  # files made before have none
    assert read_profile(path).served(get_preset("full")) == get_preset("full")


def test_a_device_raises_a_presets_sparse_threshold_and_never_lowers_it(tmp_path, profile):
    path, full = tmp_path / "profile.json", get_preset("full")
    late, early = (replace(profile, sparse_from_tokens=tokens) for tokens in (2033, 16))
    write_profile(path, late)
    assert read_profile(path) == late
    assert late.served(full) == replace(full, sparse_min_context=2033)
    assert early.served(full) == full


def test_values_outside_the_fitted_range_are_listed(profile):
    assert profile.outside(n_decode=16, kv_tokens_read=100) == {}
    assert profile.outside(n_decode=17, other=1) == {"n_decode": (1.0, 16.0)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "version: must be 1 or 2; got 3"),
        ({"version": True}, "version: must be 1 or 2; got True"),
        ({"schema": "x"}, "schema: must be 'entropic-profile'; got 'x'"),
        ({"device": ""}, "device: must be a non-empty text; got ''"),
        ({"ranges": {"n_decode": [2, 1]}}, "ranges.n_decode: must be finite, low <= high"),
        ({"ranges": {"n_decode": [2]}}, "ranges.n_decode: must be [low, high]; got [2]"),
        ({"step_law": {"base_s": 1.0}}, "step_law: step law needs exactly its own coefficients"),
        ({"step_law": {"base_s": -1.0}}, "step_law.base_s: must be finite and >= 0; got -1.0"),
        ({"fit_error": {"p95": math.nan}}, "fit_error.p95: must be finite and >= 0; got nan"),
        ({"limits": {"kv_pages": 0}}, "limits.kv_pages: must be an integer >= 1; got 0"),
        ({"colour": 1}, "colour: is not a profile field"),
        ({"source": ""}, "source: must be a non-empty text; got ''"),
        ({"kind": "guessed"}, "kind: must be one of measured, fitted, roofline; got 'guessed'"),
        ({"usd_per_hour": -1}, "usd_per_hour: must be null or finite and >= 0; got -1"),
        ({"watts": "many"}, "watts: must be null or finite and >= 0; got 'many'"),
        ({"gpus": 0}, "gpus: must be an integer >= 1; got 0"),
        ({"limits_estimated": 1}, "limits_estimated: must be true or false; got 1"),
        (
            {"kv_bytes_per_token": 1.5},
            "kv_bytes_per_token: must be null or an integer >= 1; got 1.5",
        ),
        (
            {"sparse_from_tokens": 0},
            "sparse_from_tokens: must be null or an integer >= 1; got 0",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path, profile, changes, message):
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_field_and_a_missing_file_are_named(tmp_path, profile):
    path = tmp_path / "profile.json"
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(path)
    write_profile(path, profile)
    document = json.loads(path.read_text())
    for name in asdict(profile).keys() - set(OPTIONAL):
        path.write_text(json.dumps({k: v for k, v in document.items() if k != name}))
        with pytest.raises(ProfileError, match=f"{name}: is missing"):
            read_profile(path)


def test_a_profile_cannot_be_made_wrong(profile):
    with pytest.raises(ProfileError, match="backend: must be a non-empty text"):
        replace(profile, backend="")


def test_a_failed_write_keeps_the_old_profile(tmp_path, profile):
    path = tmp_path / "profile.json"
    write_profile(path, profile)
    profile.versions["odd"] = object()  # type: ignore[assignment] # what json cannot write
    with pytest.raises(TypeError):
        write_profile(path, profile)
    assert read_profile(path).versions == {"torch": "2.13.0"}
