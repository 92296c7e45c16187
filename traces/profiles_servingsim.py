"""Import an LLMServingSim profile: kernel times of one GPU and model become a step law.

The folder layout is that of casys-kaist/LLMServingSim (MIT), ``profiler/perf``: ``meta.yaml`` and
``tp<N>/{dense,per_sequence,attention,skew}.csv``, microseconds. A step is composed as their llama
catalogue orders the layers. Sums of kernel times leave out what the CPU adds between kernels.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from controllers.core import require
from controllers.serving.limits import EngineLimits
from traces.profile import Profile
from traces.profiles_fit import StepTable, fit_law
from traces.profiles_shapes import ModelShape

MICRO = 1e-6
PER_LAYER = {  # dense kernels of one decoder layer, and how often each runs
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
ONCE = {"embedding": 1, "final_layernorm": 1}
PER_SEQUENCE = {"lm_head": 1, "sampler": 1}
ATTENTION = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
SKEW = ("t_mean_us", "t_max_us", "t_skew_us")


def import_servingsim(
    folder: Path,
    shape: ModelShape,
    *,
    limits: Mapping[str, int],
    limits_estimated: bool,
    created: str,
    commit: str = "5daddb2",
) -> Profile:
    """Return the profile of ``folder``, fitted on steps whose KV fits in the pool of ``limits``.

    ``commit`` is of the repository the folder was taken from. Only unsplit models: the profiles
    hold no all-reduce.
    """
    known = EngineLimits.from_json(dict(limits))
    meta = read_meta(folder / "meta.yaml")
    table = composed_steps(folder / "tp1", shape, pool_tokens=known.n_pages * known.page_tokens)
    alpha = skew_share(folder / "tp1" / "skew.csv")
    plain = fit_law(table)
    skewed = alpha * plain.law.per_kv_token_s
    fitted = fit_law(table, per_skewed_kv_token_s=skewed)
    return Profile(
        device=meta["gpu"],
        model=shape.name,
        backend=f"vllm {meta['vllm_version']} kernels, composed",
        dtype="bfloat16",
        commit=commit,
        created=created,
        versions={"vllm": meta["vllm_version"], "cuda": meta.get("cuda_version", "unknown")},
        ranges=fitted.ranges,
        fit_error=fitted.fit_error,
        step_law=fitted.law.to_json(),
        limits=known.to_json(),
        source=(
            f"casys-kaist/LLMServingSim @ {commit} (MIT), profile of {meta['profiled_at'][:10]}: "
            "sums of kernel times, without CPU overhead; skew of decode rows "
            f"{alpha:.3f} of the KV price"
        ),
        kind="fitted",
        limits_estimated=limits_estimated,
        kv_bytes_per_token=shape.kv_bytes_per_token(),
    )


def composed_steps(folder: Path, shape: ModelShape, *, pool_tokens: int) -> StepTable:
    """Return one step per measured attention row that the dense tables and the pool can hold.

    Mixed steps use attention measured mixed. A chunk ends its prompt, so it samples a token.
    """
    dense = _curves(folder / "dense.csv", "tokens", {**PER_LAYER, **ONCE})
    heads = _curves(folder / "per_sequence.csv", "sequences", PER_SEQUENCE)
    chunk, before, batch, context, attention = _columns(folder / "attention.csv", ATTENTION)
    tokens, sequences = chunk + batch, batch + (chunk > 0)
    kv = batch * context
    longest = min(float(xs[-1]) for xs, _ in dense.values())
    kept = (tokens <= longest) & (kv + before + chunk <= pool_tokens)
    require(bool(kept.any()), f"{folder}: must hold a step that fits the pool", pages=pool_tokens)
    layer = sum((n * np.interp(tokens, *dense[k]) for k, n in PER_LAYER.items()), attention)
    once = sum(n * np.interp(tokens, *dense[k]) for k, n in ONCE.items())
    once = once + sum(n * np.interp(sequences, *heads[k]) for k, n in PER_SEQUENCE.items())
    squares = chunk * (2.0 * before + chunk)
    seconds = MICRO * (shape.layers * layer + once)
    return StepTable(batch, kv, chunk, squares, seconds).take(kept)


def skew_share(path: Path) -> float:
    """Return the share of the KV price that decode rows pay for falling short of the longest.

    Each measured batch has a time at its own contexts, one at their mean and one at their longest;
    the share is the slope of the first excess over the second by least relative squares, >= 0.
    """
    mean, longest, own = _columns(path, SKEW, only=("regime", "pure"))
    excess, whole = own / mean - 1.0, longest / mean - 1.0
    if not whole.any():
        raise ValueError(f"{path}: must hold a batch of unequal contexts")
    return max(0.0, float(excess @ whole / (whole @ whole)))


def resolved_limits(path: Path, shape: ModelShape) -> dict[str, int]:
    """Read the limits an engine resolved, from the ``meta.json`` of a recorded vLLM run."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        kv, engine = document["kv_cache"], document["engine_kwargs"]
        context = engine["max_model_len"]
        limits = EngineLimits(
            max_seqs=engine["max_num_seqs"],
            token_budget=engine["max_num_batched_tokens"],
            n_pages=kv["num_gpu_blocks"],
            max_context=shape.max_context if context is None else context,
            page_tokens=kv["block_size"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: cannot be read as a vLLM run's limits: {what}") from error
    return limits.to_json()


def read_meta(path: Path) -> dict[str, str]:
    """Read the plain top-level values of a profile's ``meta.yaml``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    found = dict(re.findall(r"^(\w+): *(\S.*?) *$", text, flags=re.MULTILINE))
    for name in ("gpu", "vllm_version", "profiled_at"):
        if name not in found:
            raise ValueError(f"{path}: {name}: is missing")
    return {name: value.strip("'\"") for name, value in found.items()}


def _curves(
    path: Path, axis: str, kernels: Mapping[str, int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows = _rows(path, ("layer", axis, "time_us"))
    curves = {}
    for kernel in kernels:
        found = sorted((float(r[axis]), float(r["time_us"])) for r in rows if r["layer"] == kernel)
        if not found:
            raise ValueError(f"{path}: layer: must hold {kernel!r}")
        xs, ys = np.array(found).T
        curves[kernel] = (xs, ys)
    return curves


def _columns(
    path: Path, names: tuple[str, ...], *, only: tuple[str, str] | None = None
) -> list[np.ndarray]:
    rows = _rows(path, names if only is None else (*names, only[0]))
    kept = rows if only is None else [row for row in rows if row[only[0]] == only[1]]
    if not kept:
        raise ValueError(f"{path}: must hold a row")
    try:
        return [np.array([float(row[name]) for row in kept]) for name in names]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: must hold numbers: {error}") from error


def _rows(path: Path, names: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = sorted(set(names) - set(reader.fieldnames or ()))
            if missing:
                raise ValueError(f"{path}: column {missing[0]}: is missing")
            return list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
