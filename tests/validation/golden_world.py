"""A small golden folder: kernel tables from formulas, and a run that might have been timed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

DEVICE = "NVIDIA GeForce RTX 4090"
START = 1_700_000_000.0  # s, of the client's clock
CLOCK = 50_000.0  # s, of the engine's, at the same moment
KERNELS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "layernorm")


def attention_us(chunk: int, before: int, rows: int, context: float) -> float:
    """A kernel that is linear in pairs and in KV, so that interpolation is exact in both."""
    prompt = 5.0 + 2e-4 * chunk * (2 * before + chunk) if chunk else 0.0
    decode = 8.0 + 0.1 * rows + 5e-3 * rows * context if rows else 0.0
    return prompt + decode


def write_folder(folder: Path, *, requests: int = 24, seed: int = 0) -> Path:
    """Write a golden folder of an RTX 4090 whose pool holds few of its requests at once."""
    profile = folder / "profile" / "tp1"
    profile.mkdir(parents=True)
    write_meta(folder / "profile" / "meta.yaml")
    sizes = [1, 2, 8, 32, 128, 512, 1024, 2048]
    _table(
        profile / "dense.csv",
        ("layer", "tokens", "time_us"),
        ((kernel, n, 100.0 + 0.6 * n) for kernel in KERNELS for n in sizes),
    )
    _table(
        profile / "per_sequence.csv",
        ("layer", "sequences", "time_us"),
        ((kernel, n, 500.0 + n) for kernel in ("lm_head", "sampler") for n in (1, 64, 256)),
    )
    chunks, befores, batches, contexts = (
        (0, 16, 128, 512, 2048),
        (0, 512),
        (0, 1, 8, 64),
        (16, 4096),
    )
    rows = [
        (c, k, n, v, attention_us(c, k, n, v))
        for c in chunks
        for k in (befores if c else (0,))
        for n in batches
        for v in (contexts if n else (0,))
        if c or n
    ]
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
    _table(profile / "attention.csv", names, rows)
    write_skew(profile / "skew.csv", share=0.25)
    (folder / "run").mkdir()
    write_run(folder, requests=requests, seed=seed)
    return folder


def write_meta(path: Path, *, gpu: str = DEVICE, model: str = "Llama-3.1-8B", skew: str = "true"):
    path.write_text(
        f"vllm_version: 0.19.0\ngpu: {gpu}\nprofiled_at: '2026-08-17T19:43:32+00:00'\n"
        f"model: meta-llama/{model}\nskew_profile:\n  enabled: {skew}\n",
        encoding="utf-8",
    )


def write_skew(path: Path, *, share: float) -> None:
    """Batches that take ``share`` of the way from their mean context to their longest."""
    rows = []
    for regime, chunk in (("pure", 0), ("mixed", 128)):
        for n in (2, 16, 64):
            for big in (1, n // 2):
                mean, longest = (512 * (n - big) + 4096 * big) / n, 4096
                low, high = attention_us(chunk, 0, n, mean), attention_us(chunk, 0, n, longest)
                rows.append((regime, n, longest, mean, low, high, low + share * (high - low)))
    names = ("regime", "n", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us")
    _table(path, names, rows)


def write_run(folder: Path, *, requests: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(0.02, requests))
    rows = []
    for i in range(requests):
        first = arrival[i] + 0.3 + 0.01 * i
        output = int(rng.integers(4, 60))
        rows.append(
            {
                "request_id": f"bench-{i}",
                "input_toks": int(rng.integers(20, 700)),
                "output_toks": output,
                "arrival_time": START + arrival[i],
                "queued_ts": CLOCK + arrival[i] + 0.001,
                "scheduled_ts": CLOCK + arrival[i] + 0.002,
                "first_token_ts": CLOCK + first,
                "last_token_ts": CLOCK + first + 0.03 * output,
            }
        )
    write_requests(folder, rows)
    _table(
        folder / "run" / "timeseries.csv",
        ("t", "prompt_throughput", "gen_throughput", "running", "waiting", "kv_cache_pct"),
        ((float(t), 0.0, 0.0, 3, 2, 50.0) for t in range(1, 4)),
    )
    meta = {
        "model": "meta-llama/Llama-3.1-8B",
        "vllm_version": "0.19.0",
        "num_requests": requests,
        "engine_kwargs": {
            "tensor_parallel_size": 1,
            "data_parallel_size": 1,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 512,
            "max_model_len": 4096,
        },
        "kv_cache": {"num_gpu_blocks": 120, "block_size": 16, "enable_prefix_caching": True},
        "hardware": {"device_name": DEVICE},
    }
    (folder / "run" / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def read_requests(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_requests(folder: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "run" / "requests.jsonl").write_text(text, encoding="utf-8")


def change_meta(folder: Path, *path: str, to: Any) -> None:
    """Set one entry of ``meta.json``; ``...`` removes it."""
    file = folder / "run" / "meta.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    if to is ...:
        del place[path[-1]]
    file.write_text(json.dumps(document), encoding="utf-8")


def _table(path: Path, names: tuple[str, ...], rows: Iterable[tuple]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
