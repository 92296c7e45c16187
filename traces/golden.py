"""Runs of a real engine that others measured: requests, times and the limits the engine resolved.

A golden folder holds ``run/`` (``requests.jsonl``, ``timeseries.csv``, ``meta.json``) and
``profile/`` (:mod:`traces.golden_profile`). The layout is that of the ``bench`` and ``profiler``
folders of casys-kaist/LLMServingSim (MIT); the runs are of vLLM.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FRONT_END_S = 5.0  # from arrival to the engine's queue; longer is taken for a clock that jumped
TIMES = ("arrival_time", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
SERIES = ("t", "running", "waiting", "kv_cache_pct")


class GoldenError(ValueError):
    """A golden folder that cannot be used. One line: the file, the field, the rule, the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedLimits:
    """What the engine resolved before it served; None where the run does not say."""

    max_seqs: int
    token_budget: int
    n_pages: int | None
    page_tokens: int
    max_context: int | None
    prefix_caching: bool
    async_scheduling: bool
    gpu_memory_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRun:
    """One measured run; arrays are in order of arrival, ``[R]``, times in seconds.

    Times count from the first arrival, on the engine's clock. ``arrival_s`` is the client's: its
    clock is set so that the fastest request took no time from the client to the engine's queue.
    """

    path: Path
    model: str
    device: str | None
    engine: str
    tensor_parallel: int
    limits: ResolvedLimits
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    arrival_s: np.ndarray
    first_token_s: np.ndarray
    last_token_s: np.ndarray
    series: dict[str, np.ndarray]  # by column of ``timeseries.csv``; its ``t`` as the times above

    @property
    def ttft_s(self) -> np.ndarray:
        """From arrival to the first token, ``[R]``."""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> np.ndarray:
        """From arrival to the last token, ``[R]``."""
        return self.last_token_s - self.arrival_s


def golden_folders(path: Path) -> list[Path]:
    """Return ``path`` if it is a golden folder, else those below it; GoldenError if none is."""
    if (path / "run").is_dir():
        return [path]
    found = sorted(meta.parent.parent for meta in path.glob("**/run/meta.json"))
    if not found:
        raise GoldenError(f"{path}: must hold run/ and profile/, or folders that do")
    return found


def read_run(folder: Path) -> GoldenRun:
    """Read and check the ``run`` part of a golden folder; a GoldenError names what is wrong."""
    meta_path = folder / "run" / "meta.json"
    meta = _json(meta_path)
    rows = _requests(folder / "run" / "requests.jsonl", meta, meta_path)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    offset = float((columns["queued_ts"] - columns["arrival_time"]).min())
    start = float(columns["arrival_time"].min())  # on the client's clock
    started = _started(meta, meta_path, start)
    engine = _part(meta, "engine_kwargs", meta_path)
    for name in ("data_parallel_size", "pipeline_parallel_size"):
        if engine.get(name, 1) != 1:
            raise GoldenError(f"{meta_path}: engine_kwargs.{name}: must be 1; got {engine[name]}")
    series = _series(folder / "run" / "timeseries.csv")
    series["t"] = series["t"] + (started - start)
    return GoldenRun(
        path=folder,
        model=_text(meta, "model", meta_path),
        device=(meta.get("hardware") or {}).get("device_name"),
        engine=f"vllm {_text(meta, 'vllm_version', meta_path)}",
        tensor_parallel=_whole(engine, "tensor_parallel_size", "engine_kwargs", meta_path),
        limits=_limits(meta, meta_path),
        prompt_tokens=columns["input_toks"],
        output_tokens=columns["output_toks"],
        arrival_s=columns["arrival_time"] - start,
        first_token_s=columns["first_token_ts"] - offset - start,
        last_token_s=columns["last_token_ts"] - offset - start,
        series=series,
    )


def _limits(meta: dict[str, Any], path: Path) -> ResolvedLimits:
    """Return the limits in force; what ``resolved_config`` says goes before what was asked for.

    Prefix caching and asynchronous scheduling are on in vLLM unless somebody turns them off.
    """
    engine = _part(meta, "engine_kwargs", path)
    resolved = meta.get("resolved_config") or {}
    scheduler = {**engine, **(resolved.get("scheduler_config") or {})}
    cache = {**(resolved.get("cache_config") or {}), **(meta.get("kv_cache") or {})}
    context = {**engine, **(resolved.get("model_config") or {})}.get("max_model_len")
    pages = cache.get("num_gpu_blocks")
    caching = cache.get("enable_prefix_caching", engine.get("enable_prefix_caching", True))
    ahead = scheduler.get("async_scheduling", True)
    for name, value in (("enable_prefix_caching", caching), ("async_scheduling", ahead)):
        if not isinstance(value, bool):
            raise GoldenError(f"{path}: {name}: must be true or false; got {value!r}")
    return ResolvedLimits(
        max_seqs=_whole(scheduler, "max_num_seqs", "engine_kwargs", path),
        token_budget=_whole(scheduler, "max_num_batched_tokens", "engine_kwargs", path),
        n_pages=None if pages is None else _whole(cache, "num_gpu_blocks", "kv_cache", path),
        page_tokens=_whole({"block_size": 16, **cache}, "block_size", "kv_cache", path),
        max_context=None if context is None else int(context),
        prefix_caching=caching,
        async_scheduling=ahead,
        gpu_memory_share=cache.get("gpu_memory_utilization"),
    )


def _requests(path: Path, meta: dict[str, Any], meta_path: Path) -> list[dict[str, float]]:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise GoldenError(f"{where}: must be a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise GoldenError(f"{where}: must be a JSON object; got {type(row).__name__}")
        rows.append(_request(row, where))
    if not rows:
        raise GoldenError(f"{path}: must hold a request")
    asked = meta.get("num_requests", len(rows))
    if asked != len(rows):
        raise GoldenError(f"{meta_path}: num_requests: must be the {len(rows)} of {path.name}")
    waits = [row["queued_ts"] - row["arrival_time"] for row in rows]
    slowest = int(np.argmax(waits))
    if waits[slowest] - min(waits) > FRONT_END_S:
        raise GoldenError(
            f"{path}:{slowest + 1}: queued_ts: the two clocks moved apart by "
            f"{waits[slowest] - min(waits):.3g} s; a clock jumped, or the client was stuck"
        )
    return sorted(rows, key=lambda row: row["arrival_time"])


def _request(row: dict[str, Any], where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("input_toks", "output_toks"):
        found[name] = _whole(row, name, "", where)
    for name in TIMES:
        value = row.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise GoldenError(f"{where}: {name}: must be a finite number; got {value!r}")
        found[name] = float(value)
    for before, after in pairwise(TIMES[1:]):
        if found[after] < found[before]:
            raise GoldenError(
                f"{where}: {after}: must not lie before {before}, a clock jumped; "
                f"got {found[after] - found[before]:.6g} s"
            )
    return found


def _series(path: Path) -> dict[str, np.ndarray]:
    reader = csv.DictReader(_lines(path))
    for name in SERIES:
        if name not in (reader.fieldnames or ()):
            raise GoldenError(f"{path}: column {name}: is missing")
    rows = list(reader)
    try:
        found = {name: np.array([float(row[name]) for row in rows]) for name in SERIES}
    except (TypeError, ValueError) as error:
        raise GoldenError(f"{path}: must hold numbers: {error}") from error
    if (np.diff(found["t"]) <= 0.0).any():
        raise GoldenError(f"{path}: t: must rise from row to row; a clock jumped")
    return found


def _started(meta: dict[str, Any], path: Path, first_arrival: float) -> float:
    """Return when the time series began, on the client's clock; the first arrival if unsaid."""
    text = meta.get("started_at")
    if text is None:
        return first_arrival
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError as error:
        raise GoldenError(f"{path}: started_at: must be an ISO 8601 time; got {text!r}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads("\n".join(_lines(path)))
    except ValueError as error:
        raise GoldenError(f"{path}: must be JSON: {error}") from error
    if not isinstance(document, dict):
        raise GoldenError(f"{path}: must hold one JSON object; got {type(document).__name__}")
    return document


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GoldenError(f"{path}: cannot be read: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def _part(meta: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    part = meta.get(name)
    if not isinstance(part, dict):
        raise GoldenError(f"{path}: {name}: must be an object; the limits are not resolved")
    return part


def _text(row: dict[str, Any], name: str, path: Path) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise GoldenError(f"{path}: {name}: must be a text; got {value!r}")
    return value


def _whole(row: dict[str, Any], name: str, group: str, where: Path | str) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        field = f"{group}.{name}" if group else name
        raise GoldenError(f"{where}: {field}: must be an integer >= 1; got {value!r}")
    return value
