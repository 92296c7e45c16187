"""Import DistServe's published step coefficients: OPT models on A100-80G, per tensor parallelism.

Their file (LLMServe/DistServe, Apache-2.0, ``simdistserve/estimators/profile_data``) holds, in
milliseconds, prefill ``a + b*T + c*S`` and decode ``a + b*KV + c*B`` with one triple for small
batches and one for large. Our law is fitted to steps that theirs prices, so its error is the
distance to their law, not to a machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from controllers.serving.limits import EngineLimits
from traces.profile import Profile
from traces.profiles_fit import StepTable, fit_law, joined

MILLI = 1e-3
LENGTHS = (64, 128, 256, 512, 768, 1024, 1536, 2048)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 95, 128, 192, 256)
CONTEXTS = (64, 128, 256, 512, 1024, 2048)


def import_distserve(
    path: Path,
    model: str,
    *,
    tp: int,
    limits: Mapping[str, int],
    limits_estimated: bool,
    created: str,
    commit: str = "82831f1",
) -> Profile:
    """Return the profile of a model of ``path`` at ``tp``; ``commit`` is of their repository."""
    known = EngineLimits.from_json(dict(limits))
    name, row = _row(path, model, tp)
    fitted = fit_law(priced_steps(path, row, pool_tokens=known.n_pages * known.page_tokens))
    return Profile(
        device="NVIDIA A100 SXM 80GB",
        model=name,
        backend=path.name.removesuffix(".json").rpartition(".")[2] or "distserve",
        dtype="float16",
        commit=commit,
        created=created,
        versions={},
        ranges=fitted.ranges,
        fit_error=fitted.fit_error,
        step_law=fitted.law.to_json(),
        limits=known.to_json(),
        source=(
            f"LLMServe/DistServe @ {commit} (Apache-2.0), {path.name}: their published law; the "
            "errors are distances to it"
        ),
        kind="fitted",
        gpus=tp,
        limits_estimated=limits_estimated,
    )


def priced_steps(path: Path, row: Mapping[str, Any], *, pool_tokens: int) -> StepTable:
    """Return decode-only and prefill-only steps as their law prices them; none below 0."""
    base, per_token, per_square = _triple(path, row, "prefill")
    length = np.array(LENGTHS, float)
    none = np.zeros(len(length))
    prompt_ms = base + per_token * length + per_square * length**2
    prefill = StepTable(none, none, length, length**2, MILLI * prompt_ms)
    threshold = _number(path, row, "decoding_large_small_bs_threshold")
    pairs = [(b, b * c) for b in BATCHES for c in CONTEXTS if b * c <= pool_tokens]
    batch, kv = np.array(pairs, float).T
    small, large = (_triple(path, row, f"decoding_{size}bs") for size in ("small", "large"))
    decode_ms = np.where(
        batch < threshold,
        small[0] + small[1] * kv + small[2] * batch,
        large[0] + large[1] * kv + large[2] * batch,
    )
    none = np.zeros(len(batch))
    return joined((StepTable(batch, kv, none, none, MILLI * decode_ms), prefill))


def _row(path: Path, model: str, tp: int) -> tuple[str, Mapping[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: must hold one JSON object; got {type(document).__name__}")
    found = {name.rsplit("/", 1)[-1]: rows for name, rows in document.items()}
    name = model.rsplit("/", 1)[-1].lower()
    if name not in found:
        raise ValueError(f"{path}: model must be one of {', '.join(found)}; got {model!r}")
    rows = found[name]
    if not isinstance(rows, dict) or str(tp) not in rows:
        known = ", ".join(rows) if isinstance(rows, dict) else "none"
        raise ValueError(f"{path}: tp of {name} must be one of {known}; got {tp}")
    return name, rows[str(tp)]


def _triple(path: Path, row: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{path}: {name}: must be three numbers; got {value!r}")
    if not all(isinstance(v, int | float) and np.isfinite(v) for v in value):
        raise ValueError(f"{path}: {name}: must be three numbers; got {value!r}")
    return (value[0], value[1], value[2])


def _number(path: Path, row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float):
        raise ValueError(f"{path}: {name}: must be a number; got {value!r}")
    return value
