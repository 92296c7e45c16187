"""The importer of aiconfigurator's tables, on small made-up tables of a known law."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from traces.profiles_aiconfigurator import composed_steps, open_tables
from traces.profiles_devices import find_device
from traces.profiles_import import Wanted, imported
from traces.profiles_shapes import SHAPES, ModelShape

NOW = "2026-01-01T00:00:00+00:00"
LLAMA = SHAPES["Llama-3.1-8B"]
TINY = ModelShape(
    name="tiny",
    layers=3,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    ffn=256,
    vocab=1024,
    max_context=4096,
)
BANDWIDTH, REDUCE_S = 1e12, 4e-6


def product_ms(m: int, n: int, k: int) -> float:
    return 1e3 * (2e-6 + n * k * 2 / BANDWIDTH + m * n * k * 1e-15)


def decode_ms(batch: int, context: int) -> float:
    return 1e-2 + 1e-4 * batch + 1e-6 * batch * context


def prompt_ms(prompts: int, length: int) -> float:
    return 1e-2 + 1e-7 * prompts * length**2


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("package")
    folder = root / "aiconfigurator_core" / "systems" / "data" / "h100_sxm"
    (root / "aiconfigurator_core-9.8.7.dist-info").mkdir()
    grid = (64, 128, 256, 512, 1024)
    write(
        folder / "gemm" / "vllm" / "0.9.0" / "gemm_perf.parquet",
        [
            {"gemm_dtype": dtype, "m": m, "n": n, "k": k, "latency": scale * product_ms(m, n, k)}
            for dtype, scale in (("bfloat16", 1.0), ("fp8", 0.1))
            for m in (1, 16, 256, 4096, 16384)
            for n in grid
            for k in grid
        ],
    )
    heads = {"num_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "kv_cache_dtype": "bfloat16"}
    halves = {**heads, "num_heads": 2, "num_key_value_heads": 1}
    for release, scale in (("0.9.0", 7.0), ("0.10.0", 1.0)):  # the newest release counts
        attention = folder / "attention" / "vllm" / release
        write(
            attention / "generation_attention_perf.parquet",
            [
                {**h, "window_size": w, "batch_size": b, "isl": 1, "step": c - 1, "latency": ms}
                for h in (heads, halves)
                for w, slow in ((0, 1.0), (0, 3.0), (128, 0.1))  # the fastest dense kernel counts
                for b in (1, 16, 256)
                for c in (64, 1024, 8192)
                for ms in (scale * slow * decode_ms(b, c),)
            ],
        )
        attention_rows = [
            {**h, "batch_size": b, "isl": t, "step": 0, "latency": scale * prompt_ms(b, t)}
            for h in (heads, halves)
            for b in (1, 16)
            for t in (16, 256, 4096)
        ]
        parquet.write_table(
            pa.Table.from_pylist(attention_rows), attention / "context_attention_perf.parquet"
        )
    write(
        folder / "comm" / "vllm" / "0.9.0" / "custom_allreduce_perf.parquet",
        [
            {"num_gpus": 2, "kernel_source": kind, "message_size": size, "latency": ms}
            for kind, ms in (("vLLM_custom_graph", 1e3 * REDUCE_S), ("vLLM_custom_eager", 1.0))
            for size in (128, 1 << 27)
        ],
    )
    return root


def test_a_step_is_composed_of_the_kernels_of_every_layer(package):
    tables = open_tables(find_device("H100"), package)
    assert tables.version == "9.8.7"
    table = composed_steps(tables, TINY, 1, pool_tokens=10**7)
    at = np.flatnonzero((table.n_decode == 16) & (table.kv_tokens_read == 16 * 1024))
    products = sum(
        product_ms(16, n, k) for n, k in ((256, 128), (128, 128), (512, 128), (128, 256))
    )
    moved = 2 * 3e-6 + 2 * 2 * 4 * 128 * 16 / (0.8 * 3.35e12)
    moved += 3e-6 + 2 * 3 * 256 * 16 / (0.8 * 3.35e12)
    layer = 1e-3 * (products + decode_ms(16, 1024)) + moved
    rest = 1e-3 * product_ms(16, 1024, 128) + 3e-6 + 2 * 2 * 128 * 16 / (0.8 * 3.35e12)
    assert table.seconds[at] == pytest.approx([3 * layer + rest])


def test_logits_are_of_the_last_token_of_each_prompt(package):
    tables = open_tables(find_device("H100"), package)
    table = composed_steps(tables, TINY, 1, pool_tokens=10**7)
    at = np.flatnonzero((table.prompt_tokens == 256) & (table.prompt_squares == 256**2))
    products = sum(
        product_ms(256, n, k) for n, k in ((256, 128), (128, 128), (512, 128), (128, 256))
    )
    least = 1e-3 * (3 * (products + prompt_ms(1, 256)) + product_ms(1, 1024, 128))
    assert least < table.seconds[at][0] < least + 5e-5


def test_a_split_model_pays_two_all_reduces_a_layer(package):
    tables = open_tables(find_device("H100"), package)
    alone = tables.all_reduce_s(np.array([1e3, 1e6]), 1)
    assert alone.tolist() == [0.0, 0.0]
    assert tables.all_reduce_s(np.array([1e3, 1e6]), 2) == pytest.approx([REDUCE_S] * 2)
    split = composed_steps(tables, TINY, 2, pool_tokens=10**7)
    assert split.seconds.min() > 2 * TINY.layers * REDUCE_S


def test_products_between_and_beyond_the_grid_grow_with_size(package):
    tables = open_tables(find_device("H100"), package)
    rows = np.array([1.0, 3.0, 300.0, 60000.0])
    times = [tables.product_s(rows, n, 128) for n in (256, 300, 400, 512, 1024, 4096)]
    assert all(np.all(below < above) for below, above in pairwise(times))
    assert times[-1] == pytest.approx(4.0 * times[-2])
    assert np.all(np.diff(times[0]) > 0)


def test_an_imported_profile_says_whose_tables_it_rests_on(package):
    config = package / "config.json"
    config.write_text(json.dumps({**HUGGING_FACE, "_name_or_path": "tiny"}))
    wanted = Wanted(
        origin="aiconfigurator",
        model=str(config),
        gpu="H100",
        tables=package,
        max_seqs=64,
        usd_per_hour=2.5,
    )
    found = imported(wanted, created=NOW)
    assert found.model == "tiny"
    assert found.versions == {"aiconfigurator-core": "9.8.7", "vllm": "0.10.0"}
    assert found.limits["max_seqs"] == 64
    assert found.usd_per_hour == 2.5
    assert found.limits_estimated
    assert found.fit_error["decode_mean_abs_pct"] < 5.0


HUGGING_FACE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
}


def test_the_package_missing_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="aiconfigurator-core is not installed: pip install"):
        open_tables(find_device("H100"))


@pytest.mark.parametrize(
    ("gpu", "shape", "message"),
    [
        ("L4", TINY, "aiconfigurator-core has tables of A100"),
        ("A100", TINY, "a100_sxm: must be a folder of aiconfigurator-core tables"),
        (
            "H100",
            LLAMA,
            "generation_attention_perf.parquet of H100 SXM 80GB has no row for num_heads 32",
        ),
    ],
)
def test_tables_that_are_not_there_are_named(package, gpu, shape, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        composed_steps(open_tables(find_device(gpu), package), shape, 1, pool_tokens=10**6)
