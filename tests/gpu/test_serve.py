"""The engine's stage says what it found, on a model small enough for a dry run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from reports.gpu.place import Place
from reports.gpu.record import Record, read_rows
from reports.gpu.serve import serve, served
from tests.backend.tiny import tiny_model
from traces.profile import read_profile

PLACE = Place(device=torch.device("cpu"), dry=True, kernels="naive")


def reference() -> Any:
    config = tiny_model().model.config
    config = type(config)(**{**config.to_dict(), "attn_implementation": "sdpa"})
    made: Any = LlamaForCausalLM(config).eval()
    made.load_state_dict(tiny_model().model.state_dict())
    return made


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("serve")
    served(PLACE, Record(folder, "serve", PLACE.describe()), tiny_model(), reference())
    profile = read_profile(folder / "profile-serving-float32.json")
    assert profile.ranges["n_decode"] == (0.0, 2.0)
    assert sorted(path.name for path in folder.iterdir()) == [
        "gpu.log", "profile-serving-float32.json", "serve.json",
    ]  # fmt: skip
    return {row["what"]: row for row in read_rows(folder, "serve")}


def test_every_part_of_the_engine_passes_on_a_tiny_model(rows):
    assert list(rows) == ["serve_greedy", "serve_coverage_one", "serve_parity", "serve_profile"]
    assert not [row for row in rows.values() if "error" in row]
    assert all(rows[name]["passed"] for name in list(rows)[:3])
    assert rows["serve_greedy"]["equal"] == rows["serve_greedy"]["tokens"] == 12
    assert rows["serve_parity"]["commands_differing"] == 0 < rows["serve_parity"]["commands"]


def test_another_model_is_found_out(tmp_path):
    record = Record(tmp_path, "serve", PLACE.describe())
    other = replace(tiny_model(seed=1), weights_sha256="1" * 64)
    served(PLACE, record, other, reference())
    (row,) = [row for row in record.rows if row["what"] == "serve_greedy"]
    assert row["passed"] is False


def test_without_a_model_the_stage_says_what_it_needs(tmp_path):
    record = Record(tmp_path, "serve", PLACE.describe())
    serve(PLACE, record)
    assert record.rows == [{"what": "skipped", "part": "serve", "note": "needs --model"}]
