"""The ``profile`` part of a golden folder: kernel times as a step law that reads tables.

A step is the sum of its kernels, as the model's layers order them. What is not in the profile is
not in the sum: the CPU between kernels. An all-reduce, which no profile holds, is estimated from
the datasheet of the link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.steplaw import StepLaw
from traces.golden import GoldenError, GoldenRun
from traces.golden_law import KernelTables, TableLaw
from traces.golden_tables import Attention, Line, Skew
from traces.profiles_devices import find_device
from traces.profiles_fit import StepTable, fit_law
from traces.profiles_servingsim import ATTENTION, _columns, _rows, read_meta
from traces.profiles_shapes import ModelShape, plain_name
from traces.roofline import ELEMENT_BYTES, LINK_SHARE, LINK_START_S

TWICE = ("layernorm",)  # in each layer; every other kernel of a layer runs once
ONCE = ("embedding", "final_layernorm")  # in a step
SKEW = ("n", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us")
HARDLY = 1e-15  # s: a skew price that asks the simulator for the longest context and costs nothing


@dataclass(frozen=True, slots=True)
class GoldenProfile:
    """The step law of one GPU, model and split, and what it rests on."""

    law: TableLaw
    device: str
    measured: str  # the day
    affine_error_pct: float  # mean absolute, of the affine fit on the tables' own steps
    notes: tuple[str, ...]


def read_profile_tables(folder: Path, run: GoldenRun, shape: ModelShape) -> GoldenProfile:
    """Read the profile of ``folder`` for ``run``; GoldenError if it is of another device or model.

    Skew counts where it was measured, unless ``meta.yaml`` sets ``skew_profile.enabled`` to false.
    """
    path = folder / "profile" / "meta.yaml"
    meta = read_meta(path)
    _check_same(path, meta, run)
    tables = folder / "profile" / f"tp{run.tensor_parallel}"
    if not tables.is_dir():
        raise GoldenError(
            f"{tables}: is missing: the run split the model {run.tensor_parallel}-way"
        )
    notes: list[str] = []
    dense = _dense(tables / "dense.csv", shape)
    if run.tensor_parallel > 1:
        dense = _with_links(dense, meta["gpu"], shape, run.tensor_parallel)
        notes.append("all-reduce estimated from the link's datasheet, not measured")
    skew = _skew(tables / "skew.csv") if (tables / "skew.csv").is_file() else None
    left_out = _skew_left_out(path)
    if skew is None or left_out:
        why = "there is no skew.csv" if skew is None else "meta.yaml has skew_profile.enabled false"
        notes.append(f"{why}: batches count as equal contexts")
    read = _columns(tables / "attention.csv", ATTENTION)
    columns = {str(name): column for name, column in zip(ATTENTION, read, strict=True)}
    kernels = KernelTables(
        layers=shape.layers,
        dense=dense,
        heads=_sum_lines(_kernels(tables / "per_sequence.csv", "sequences"), {}),
        attention=Attention.of(columns),
        skew=skew,
        skewed=not left_out,
    )
    law, error = _affine(kernels, columns)
    price = max(HARDLY, law.per_skewed_kv_token_s)
    return GoldenProfile(
        law=TableLaw(**{**law.to_json(), "per_skewed_kv_token_s": price}, tables=kernels),
        device=meta["gpu"],
        measured=meta["profiled_at"][:10],
        affine_error_pct=error,
        notes=tuple(notes),
    )


def _check_same(path: Path, meta: dict[str, str], run: GoldenRun) -> None:
    device, model = meta["gpu"], meta.get("model")
    if run.device is not None and run.device != device:
        raise GoldenError(f"{path}: gpu: must be that of the run, {run.device!r}; got {device!r}")
    if model is None or plain_name(model) != plain_name(run.model):
        raise GoldenError(f"{path}: model: must be that of the run, {run.model!r}; got {model!r}")


def _skew_left_out(path: Path) -> bool:
    """Return whether the profile says of its own skew measurements that they do not count."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^skew_profile:\n(?:[ ].*\n)*?[ ]+enabled: *(\w+)", text, flags=re.M)
    return found is not None and found.group(1) == "false"


def _kernels(path: Path, axis: str) -> dict[str, Line]:
    rows = _rows(path, ("layer", axis, "time_us"))
    try:
        points = [(row["layer"], float(row[axis]), float(row["time_us"])) for row in rows]
    except (TypeError, ValueError) as error:
        raise GoldenError(f"{path}: must hold numbers: {error}") from error
    if not points:
        raise GoldenError(f"{path}: must hold a row")
    found = {}
    for kernel in dict.fromkeys(name for name, _, _ in points):
        xs, ys = np.array([(x, y) for name, x, y in points if name == kernel]).T
        found[kernel] = Line.through(xs, ys)
    return found


def _sum_lines(kernels: dict[str, Line], times: dict[str, int]) -> Line:
    xs = np.unique(np.concatenate([line.xs for line in kernels.values()]))
    ys = [sum(times.get(k, 1) * line(x) for k, line in kernels.items()) for x in xs.tolist()]
    return Line(xs.tolist(), ys)


def _dense(path: Path, shape: ModelShape) -> Line:
    kernels = _kernels(path, "tokens")
    for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"):
        if name not in kernels:
            raise GoldenError(f"{path}: layer: must hold {name!r}: dense decoders only")
    times = dict.fromkeys(kernels, shape.layers)
    times |= dict.fromkeys(TWICE, 2 * shape.layers) | dict.fromkeys(ONCE, 1)
    return _sum_lines(kernels, times)


def _with_links(dense: Line, gpu: str, shape: ModelShape, split: int) -> Line:
    """Add two all-reduces a layer, as ``traces.roofline`` prices them."""
    link = find_device(gpu.removeprefix("NVIDIA ")).link_bytes_per_s * LINK_SHARE
    moved = 2.0 * (split - 1) / split * ELEMENT_BYTES * shape.hidden
    each = [LINK_START_S + moved * tokens / link for tokens in dense.xs]
    ys = [y + 1e6 * 2 * shape.layers * s for y, s in zip(dense.ys, each, strict=True)]
    return Line(dense.xs, ys)


def _skew(path: Path) -> Skew:
    rows = [row for row in _rows(path, ("regime", *SKEW)) if all(row[name] for name in SKEW)]
    try:
        columns = {name: np.array([float(row[name]) for row in rows]) for name in SKEW}
        return Skew.of(columns, np.array([row["regime"] == "pure" for row in rows], bool))
    except ValueError as error:
        raise GoldenError(f"{path}: cannot be read as skew measurements: {error}") from error


def _affine(kernels: KernelTables, columns: dict[str, np.ndarray]) -> tuple[StepLaw, float]:
    """Return the affine law nearest to the tables on their measured points, and its error."""
    chunk, before = columns["prefill_chunk"], columns["kv_prefill"]
    rows, context = columns["n_decode"], columns["kv_decode"]
    kept = chunk + rows <= kernels.dense.xs[-1]
    kv, squares = rows * context, chunk * (2.0 * before + chunk)
    steps = np.stack([rows, kv, chunk, squares], axis=1)[kept]
    seconds = [kernels.step_s(n, read, p, q, 0.0) for n, read, p, q in steps.tolist()]
    n, read, p, q = steps.T
    fitted = fit_law(StepTable(n, read, p, q, np.array(seconds)))
    return fitted.law, fitted.fit_error["held_out_mean_abs_pct"]
