"""The profiles we ship, how one is found, and the roofline that is never put in place of one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from controllers.serving.limits import EngineLimits
from traces.profile import ProfileError, read_profile, write_profile
from traces.profiles import CPU, find_profile, shipped
from traces.profiles_devices import DEVICES, estimated_limits, find_device, names_device
from traces.profiles_shapes import SHAPES, find_shape, plain_name, read_shape
from traces.profiles_show import pruning, report, step_times
from traces.roofline import against, roofline_profile, roofline_steps

LLAMA = "Llama-3.1-8B"
GPUS = ("A100", "H100", "H200")
# Fits of others' composition of the same tables (aiconfigurator's own estimates, static batches),
# ms: decode a + b*B + c*KV; prefill a + b*T + c*S.
PUBLISHED = {
    "H100": ((6.392, 0.01113, 4.180e-5), (4.900, 0.01641, 1.097e-6)),
    "A100": ((11.485, 0.03387, 7.888e-5), (8.222, 0.05386, 1.729e-6)),
    "H200": ((4.903, 0.01156, 2.983e-5), (3.524, 0.01713, 9.903e-7)),
}


@pytest.mark.parametrize("path", [path for path, _ in shipped()], ids=lambda path: path.stem)
def test_every_shipped_profile_says_where_it_comes_from(path):
    profile = read_profile(path)
    EngineLimits.from_json(profile.limits)
    assert profile.ranges
    assert profile.fit_error["held_out_mean_abs_pct"] < 15.0
    if profile.kind == "fitted":
        assert "Apache-2.0" in profile.source or "MIT" in profile.source
        assert "without CPU overhead" in profile.source
        assert profile.kv_bytes_per_token == SHAPES[profile.model].kv_bytes_per_token()
        assert find_profile(profile.model, profile.device, profile.gpus) == profile
    assert profile.limits_estimated == (profile.kind == "fitted" and "4090" not in profile.device)
    assert profile.usd_per_hour is None


@pytest.mark.parametrize("gpu", GPUS)
def test_a_shipped_law_agrees_with_an_independent_composition(gpu):
    law = find_profile(LLAMA, gpu).law
    decode, prefill = PUBLISHED[gpu]
    off = [
        law.step_s(b, b * c, 0, 0) * 1e3 / (decode[0] + decode[1] * b + decode[2] * b * c) - 1.0
        for b in (1, 8, 32, 128, 256)
        for c in (256, 1024, 4096)
    ]
    assert np.mean(np.abs(off)) < 0.06
    off = [
        law.step_s(0, 0, t, t * t) * 1e3 / (prefill[0] + prefill[1] * t + prefill[2] * t * t) - 1.0
        for t in (256, 512, 1024, 2048, 4096, 8192)
    ]
    assert np.mean(np.abs(off)) < 0.16


def test_pruning_pays_at_large_batches_only():
    rows = {row["n_decode"]: row for row in pruning(find_profile(LLAMA, "H100"))}
    assert rows[128]["saved_s"] == pytest.approx(5.4e-3, rel=0.05)
    assert rows[4]["saved_s"] == pytest.approx(0.17e-3, rel=0.05)
    assert rows[128]["saved_share"] > 0.15 > 0.03 > rows[4]["saved_share"]


def test_more_gpus_make_steps_shorter_and_pools_larger():
    profiles = [find_profile(LLAMA, "h100", tp) for tp in (1, 2, 4, 8)]
    times = [profile.law.step_s(64, 64 * 2048, 0, 0) for profile in profiles]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[-1] < 8.0  # all-reduces and small products do not shrink alike
    pages = [profile.limits["n_pages"] for profile in profiles]
    assert pages == sorted(pages)


@pytest.mark.parametrize("model", [LLAMA, "meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"])
@pytest.mark.parametrize("gpu", ["h100", "NVIDIA H100 SXM", "H100SXM"])
def test_a_profile_is_found_however_it_is_written(model, gpu):
    assert find_profile(model, gpu).device == "NVIDIA H100 SXM 80GB"


@pytest.mark.parametrize(
    ("model", "gpu", "tp", "message"),
    [
        (LLAMA, "A10", 1, "no such profile; there is Llama-3.1-8B on NVIDIA A100 SXM 80GB (tp 1,"),
        (LLAMA, "H100", 3, "there is Llama-3.1-8B on NVIDIA H100 SXM 80GB (tp 1, 2, 4, 8)"),
        ("Mistral-7B", "H100", 1, "no such profile; there is Llama-3.1-70B on"),
        (LLAMA, "SXM", 1, "names several profiles: Llama-3.1-8B on NVIDIA A100 SXM 80GB (tp 1);"),
        (LLAMA, "", 1, "no such profile"),
    ],
)
def test_no_other_profile_is_put_in_place_of_the_one_asked_for(model, gpu, tp, message):
    with pytest.raises(ProfileError) as caught:
        find_profile(model, gpu, tp)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_has_no_profile(tmp_path):
    with pytest.raises(ProfileError, match="there is none"):
        find_profile(LLAMA, "H100", folder=tmp_path)


def test_words_of_a_name_are_never_cut_short():
    assert names_device("RTX4090", "NVIDIA GeForce RTX 4090")
    assert not names_device("L4", "NVIDIA L40S 48GB")
    assert not names_device("4090 H100", "NVIDIA GeForce RTX 4090")


def test_the_cpu_profile_is_measured_and_its_limits_resolved():
    profile = read_profile(CPU)
    assert (profile.kind, profile.limits_estimated) == ("measured", False)


def test_step_times_say_what_lies_outside():
    profile = find_profile(LLAMA, "H100")
    rows = {(row["n_decode"], row["context_tokens"]): row for row in step_times(profile)}
    assert rows[1, 1024]["outside"] == []
    assert rows[128, 16384]["outside"] == ["kv_tokens_read"]
    assert not rows[128, 16384]["fits_pool"]
    assert rows[32, 4096]["step_s"] == profile.law.step_s(32, 32 * 4096, 0, 0)
    text = report(profile)
    saved = f"{1e3 * pruning(profile)[-1]['saved_s']:.2f}"
    for words in ("estimated, not resolved", "Apache-2.0", "131,072 bytes per token", saved):
        assert words in text


@pytest.mark.parametrize("gpu", ["A100", "H100", "H200", "L40S"])
def test_a_roofline_is_labelled_and_within_its_stated_distance(gpu):
    fitted = find_profile(LLAMA, gpu)
    found = roofline_profile(find_shape(LLAMA), find_device(gpu))
    assert found.kind == "roofline"
    assert "nothing was measured" in found.source
    assert all(name.startswith("affine_") for name in found.fit_error)
    off = against(found.law, fitted)
    assert 2.0 < off["decode_mean_abs_pct"] < 25.0
    assert 2.0 < off["prefill_mean_abs_pct"] < 30.0
    assert against(fitted.law, fitted) == dict.fromkeys(off, 0.0)


def test_a_roofline_reads_weights_once_and_kv_at_the_stated_share():
    shape, device = find_shape(LLAMA), find_device("H100")
    law = roofline_profile(shape, device).law
    assert law.base_s == pytest.approx(2 * shape.matrix_weights / (0.8 * 3.35e12), rel=0.02)
    assert law.per_kv_token_s == pytest.approx(131_072 / (0.8 * 3.35e12), rel=0.02)
    tokens = 8192
    operations = 2 * tokens * (shape.matrix_weights - shape.hidden * shape.vocab)
    assert law.step_s(0, 0, tokens, 0) == pytest.approx(operations / (0.7 * 989e12), rel=0.05)


def test_a_roofline_pays_for_its_all_reduces():
    shape, device = find_shape("Llama-3.1-70B"), find_device("A100")
    first = roofline_steps(shape, device, 8, pool_tokens=4096).take(np.array([0]))
    alone = 2 * shape.matrix_weights + shape.kv_bytes_per_token() * first.kv_tokens_read[0]
    rest = first.seconds[0] - alone / (8 * 0.8 * 2.039e12)
    moved = 2 * 7 / 8 * 2 * shape.hidden / (0.7 * 300e9)
    assert rest == pytest.approx(2 * shape.layers * (5e-6 + moved))


def test_memory_arithmetic_comes_near_what_an_engine_resolved(data_dir):
    """vLLM 0.19 resolved 2,588 pages of 16 tokens on the RTX 4090, at a smaller token budget."""
    meta = data_dir / "golden" / "RTX4090" / LLAMA / "run" / "meta.json"
    resolved = json.loads(meta.read_text())["kv_cache"]["num_gpu_blocks"]
    estimated = estimated_limits(find_shape(LLAMA), find_device("rtx 4090"))["n_pages"]
    assert 0.75 < estimated / resolved < 1.0


def test_every_device_names_its_source():
    for name, device in DEVICES.items():
        assert device.source
        assert find_device(name) == device


@pytest.mark.parametrize("gpu", ["A10", "", "SXM", "RTX"])
def test_an_unknown_or_ambiguous_gpu_lists_the_known(gpu):
    with pytest.raises(ValueError, match=rf"gpu must name one of A100 SXM.*got '{gpu}'"):
        find_device(gpu)


def test_a_model_too_large_for_its_gpus_is_refused():
    with pytest.raises(ValueError, match=r"must hold the weights of Llama-3\.1-70B"):
        roofline_profile(find_shape("Llama-3.1-70B"), find_device("H100"))


@pytest.mark.parametrize(("tp", "what"), [(3, "heads"), (16, "kv_heads")])
def test_a_split_that_does_not_divide_is_refused(tp, what):
    with pytest.raises(ValueError, match=f"^{what} must be a multiple of tp"):
        roofline_profile(find_shape(LLAMA), find_device("H100"), tp)


def test_known_models_weigh_what_their_makers_say():
    billions = {
        "Llama-3.1-8B": 8.03,
        "Llama-3.1-70B": 70.6,
        "Qwen3-8B": 8.19,
        "SmolLM2-135M": 0.1345,
    }
    for name, weights in billions.items():
        assert SHAPES[name].weights / 1e9 == pytest.approx(weights, rel=0.005), name
    assert SHAPES[LLAMA].kv_bytes_per_token() == 131_072


CONFIG = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "_name_or_path": "meta-llama/Llama-3.1-8B",
}


def test_a_config_file_gives_the_shape(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    assert find_shape(str(path)) == find_shape(str(tmp_path)) == SHAPES[LLAMA]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size: is missing"),
        ({"vocab_size": "many"}, "vocab_size: must be an integer; got 'many'"),
        ({"num_local_experts": 8}, "num_local_experts: must be absent: dense decoders only"),
        ({"num_key_value_heads": 5}, "heads must be a multiple of kv_heads"),
        ({"num_hidden_layers": 0}, "layers must be >= 1; got layers=0"),
    ],
)
def test_a_config_that_is_no_dense_decoder_is_named(tmp_path, changes, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_shape(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["[1]", "{", ""])
def test_a_config_that_is_no_object_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: "):
        find_shape(str(path))


def test_plain_names_drop_what_does_not_change_the_cost():
    assert plain_name("meta-llama/Meta-Llama-3.1-8B-Instruct/") == "llama-3.1-8b"
    assert plain_name("SmolLM2-135M-Instruct") == plain_name("SmolLM2-135M")


def test_a_found_profile_survives_writing(tmp_path):
    profile = find_profile("Llama-3.1-70B", "A100", 8)
    write_profile(tmp_path / "p.json", profile)
    assert read_profile(tmp_path / "p.json") == profile
