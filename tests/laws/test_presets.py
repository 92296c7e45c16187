"""Presets: complete, immutable, gated, and named in errors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from controllers.compose import Gated
from controllers.core import replay
from controllers.coverage import FixedCoverage
from controllers.presets import PRESETS, Preset, get_preset, shadowed
from controllers.priority import Fcfs
from tests.strategies import token_signal

ROWS = ("baseline", "sampling", "scheduling", "attention", "full", "seed", "best")


def test_the_presets_are_the_papers_rows_plus_seed_and_best() -> None:
    assert tuple(PRESETS) == ROWS
    assert all(PRESETS[name].name == name for name in ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_switching_a_request_off_returns_it_to_baseline(name: str) -> None:
    preset = get_preset(name)
    assert isinstance(preset.temperature, Gated)
    rng = np.random.default_rng(0)
    off = [
        token_signal(4, np.float32, h_in=h, h_cal=h, v_in=1.0, x_user=-0.5, enabled=0.0)
        for h in rng.uniform(0, 9, 20)
    ]
    np.testing.assert_array_equal(replay(preset.temperature, off), np.float32(-0.5))
    np.testing.assert_array_equal(replay(preset.coverage, off), 1.0)


@pytest.mark.parametrize("name", ROWS)
def test_dense_probes_run_exactly_where_coverage_is_controlled(name: str) -> None:
    preset = get_preset(name)
    assert (preset.probe_every > 0) == (preset.coverage != FixedCoverage())


def test_each_row_of_the_ablation_changes_one_law_and_full_changes_all() -> None:
    base, full = get_preset("baseline"), get_preset("full")
    changed = {"sampling": "temperature", "scheduling": "priority", "attention": "coverage"}
    for name, role in changed.items():
        for other in ("temperature", "coverage", "priority"):
            source = full if other == role else base
            assert getattr(get_preset(name), other) == getattr(source, other)


def test_a_shadowed_preset_applies_baseline_and_logs_the_other() -> None:
    preset = shadowed(get_preset("best"))
    signals = [token_signal(dtype=np.float32, h_in=4.0, v_in=1.0, x_user=-0.2)] * 5
    np.testing.assert_array_equal(replay(preset.temperature, signals), np.float32(-0.2))
    state = preset.temperature.init(signals[0])
    state, _ = preset.temperature.update(state, signals[0])
    assert preset.temperature.shadow_command(state)[0] < np.float32(-0.2)
    np.testing.assert_array_equal(replay(preset.coverage, signals), np.float32(1.0))
    state = preset.coverage.init(signals[0])
    state, _ = preset.coverage.update(state, signals[0])
    assert 0.9 < preset.coverage.shadow_command(state)[0] < 1.0
    assert (preset.priority, preset.kv_budget_pages) == (Fcfs(), None)


def test_an_unknown_preset_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match="unknown preset 'bset'; known: baseline, sampling"):
        get_preset("bset")


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["baseline"] = get_preset("best")  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_preset("best").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantum_tokens", 0),
        ("probe_every", -1),
        ("collapse_prior_nats", float("nan")),
        ("name", ""),
    ],
)
def test_bad_preset_fields_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(get_preset("best"), **{field: value})


def test_fingerprints_name_each_law() -> None:
    assert set(Preset.fingerprints(get_preset("seed"))) == {"temperature", "coverage", "priority"}


def test_the_control_plane_imports_numpy_and_nothing_heavier() -> None:
    heavy = "{'torch', 'scipy', 'simpy', 'pyarrow', 'hypothesis'}"
    code = f"import sys, controllers; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
