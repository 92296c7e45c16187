"""Compose a dense decoder's step from NVIDIA's aiconfigurator tables, and fit a step law to it.

The tables (package ``aiconfigurator-core``, Apache-2.0) hold measured kernel times by GPU: matrix
products, attention of prompts and of decode rows, all-reduces. Which kernels make a step is read
off its llama model: per layer two norms, four products, attention and a gated activation, two
all-reduces where the model is split. Sums of kernel times leave out what the CPU adds.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.core import require
from traces.profile import Profile
from traces.profiles_devices import Device, estimated_limits
from traces.profiles_fit import StepTable, fit_law, joined
from traces.profiles_shapes import ModelShape

PACKAGE, MODULE = "aiconfigurator-core", "aiconfigurator_core"
SYSTEMS = {  # their folder of a device
    "A100 SXM 80GB": "a100_sxm",
    "H100 SXM 80GB": "h100_sxm",
    "H200 SXM 141GB": "h200_sxm",
    "B200 SXM 180GB": "b200_sxm",
    "L40S 48GB": "l40s",
}
ENGINE = "vllm"
MILLI = 1e-3
LONGEST_PROMPT = 16384  # tokens of one prefill step in the tables we compose
MOST_DECODES = 256
VECTOR_SHARE = 0.8  # of memory bandwidth, and a start of 3 us, for kernels without a table:
VECTOR_START_S = 3e-6  # both are the package's own corrections (systems/*.yaml)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one GPU, bfloat16; times in seconds, interpolated in logarithms."""

    folder: Path
    device: Device
    version: str  # of the package

    def product_s(self, rows: np.ndarray, n: int, k: int) -> np.ndarray:
        """Return seconds of a ``[rows, k] x [k, n]`` product; beyond the last n, as n grows."""
        table = self._read("gemm", "gemm_perf", ("m", "n", "k", "latency"), gemm_dtype="bfloat16")
        log = np.zeros(len(rows))
        for n_at, n_weight in _bracket(table["n"], n):
            for k_at, k_weight in _bracket(table["k"], k):
                chosen = (table["n"] == n_at) & (table["k"] == k_at)
                require(bool(chosen.any()), f"{self.folder}: gemm: no product", n=n_at, k=k_at)
                log += n_weight * k_weight * _log_curve(table, "m", chosen, rows)
        beyond = max(1.0, n / table["n"].max()) * max(1.0, k / table["k"].max())
        return np.exp(log) * beyond

    def decode_steps(self, shape: ModelShape, tp: int) -> tuple[np.ndarray, ...]:
        """Return batch, context and seconds of one layer's attention of decode rows, ``[N]``."""
        found = self._attention("generation_attention_perf", shape, tp)
        kept = found["batch_size"] <= MOST_DECODES
        return found["batch_size"][kept], found["step"][kept] + 1, found["latency"][kept]

    def prompt_steps(self, shape: ModelShape, tp: int) -> tuple[np.ndarray, ...]:
        """Return prompts, their length and seconds of one layer's attention over them, ``[N]``."""
        found = self._attention("context_attention_perf", shape, tp)
        kept = found["batch_size"] * found["isl"] <= LONGEST_PROMPT
        return found["batch_size"][kept], found["isl"][kept], found["latency"][kept]

    def all_reduce_s(self, elements: np.ndarray, tp: int) -> np.ndarray:
        """Return seconds of an all-reduce over ``tp`` GPUs inside a captured graph."""
        if tp == 1:
            return np.zeros(len(elements))
        names = ("message_size", "latency")
        stem = "custom_allreduce_perf"
        table = self._read("comm", stem, names, num_gpus=tp, kernel_source="vLLM_custom_graph")
        every = np.ones(len(table["latency"]), bool)
        return np.exp(_log_curve(table, "message_size", every, elements))

    def vector_s(self, elements: np.ndarray) -> np.ndarray:
        """Return seconds of a kernel that only moves so many bfloat16 elements."""
        return VECTOR_START_S + 2.0 * elements / (VECTOR_SHARE * self.device.bytes_per_s)

    def _attention(self, stem: str, shape: ModelShape, tp: int) -> dict[str, np.ndarray]:
        names = ("batch_size", "isl", "step", "latency")
        wanted = {"num_heads": shape.heads // tp, "num_key_value_heads": shape.kv_heads // tp}
        wanted |= {"head_dim": shape.head_dim, "window_size": 0, "kv_cache_dtype": "bfloat16"}
        found = self._read("attention", stem, names, **wanted)
        order = np.lexsort(tuple(found[name] for name in reversed(names)))  # fastest kernel first
        points = np.stack([found[name][order] for name in names[:-1]])
        _, first = np.unique(points, axis=1, return_index=True)
        return {name: column[order][first] for name, column in found.items()}

    def _read(
        self, group: str, stem: str, names: tuple[str, ...], **wanted: object
    ) -> dict[str, np.ndarray]:
        """Return columns of the rows that match; a column the table lacks is not asked about."""
        import pyarrow.parquet as parquet

        path = self.path(group, stem)
        try:
            held = parquet.read_schema(path).names
            asked_for = [(name, "==", wanted[name]) for name in wanted if name in held]
            table = parquet.read_table(path, columns=list(names), filters=asked_for)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if not len(table):
            asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
            raise ValueError(f"{path.name} of {self.device.name} has no row for {asked}")
        columns = {name: table[name].to_numpy().astype(float) for name in names}
        columns["latency"] = MILLI * columns["latency"]
        return columns

    def path(self, group: str, stem: str) -> Path:
        """Return the newest vLLM table of this kind; none is an error naming folder and kind."""
        found = sorted((self.folder / group / ENGINE).glob(f"*/{stem}.parquet"), key=_release)
        if not found:
            raise ValueError(f"{self.folder}: must hold {group}/{ENGINE}/*/{stem}.parquet")
        return found[-1]


def open_tables(device: Device, root: Path | None = None) -> Tables:
    """Return a device's tables; ``root`` is an unpacked package instead of the installed one."""
    if device.name not in SYSTEMS:
        raise ValueError(f"{PACKAGE} has tables of {', '.join(SYSTEMS)}; got {device.name!r}")
    if root is None:
        spec = importlib.util.find_spec(MODULE)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
        package = Path(spec.submodule_search_locations[0])
    else:
        package = root / MODULE if (root / MODULE).is_dir() else root
    folder = package / "systems" / "data" / SYSTEMS[device.name]
    if not folder.is_dir():
        raise ValueError(f"{folder}: must be a folder of {PACKAGE} tables")
    return Tables(folder, device, _version(package))


def composed_steps(tables: Tables, shape: ModelShape, tp: int, *, pool_tokens: int) -> StepTable:
    """Return decode-only and prefill-only steps at the attention tables' own grid points.

    The grid doubles, so that decode steps up to twice the pool cover it.
    """
    batch, context, attention = tables.decode_steps(shape, tp)
    fits = batch * context <= 2 * pool_tokens
    batch, context, attention = batch[fits], context[fits], attention[fits]
    seconds = shape.layers * attention + _rest_s(tables, shape, tp, batch, batch)
    none = np.zeros(len(batch))
    decode = StepTable(batch, batch * context, none, none, seconds)
    prompts, length, attention = tables.prompt_steps(shape, tp)
    tokens = prompts * length
    seconds = shape.layers * attention + _rest_s(tables, shape, tp, tokens, prompts)
    none = np.zeros(len(tokens))
    return joined((decode, StepTable(none, none, tokens, prompts * length**2, seconds)))


def import_aiconfigurator(
    shape: ModelShape, device: Device, *, tp: int, created: str, tables: Tables
) -> Profile:
    """Return the profile of ``shape`` on ``tp`` GPUs; the engine limits are estimates."""
    shape.check_split(tp)
    limits = estimated_limits(shape, device, tp)
    pool_tokens = limits["n_pages"] * limits["page_tokens"]
    fitted = fit_law(composed_steps(tables, shape, tp, pool_tokens=pool_tokens))
    release = tables.path("attention", "generation_attention_perf").parent.name
    return Profile(
        device=f"NVIDIA {device.name}",
        model=shape.name,
        backend=f"vllm {release} kernels, composed",
        dtype="bfloat16",
        commit=f"{PACKAGE} {tables.version}",
        created=created,
        versions={PACKAGE: tables.version, "vllm": release},
        ranges=fitted.ranges,
        fit_error=fitted.fit_error,
        step_law=fitted.law.to_json(),
        limits=limits,
        source=(
            f"{PACKAGE} {tables.version} (NVIDIA, Apache-2.0): measured kernel times, composed "
            "here; sums of kernel times, without CPU overhead"
        ),
        kind="fitted",
        watts=device.watts,
        gpus=tp,
        limits_estimated=True,
        kv_bytes_per_token=shape.kv_bytes_per_token(),
    )


def _rest_s(
    tables: Tables, shape: ModelShape, tp: int, tokens: np.ndarray, sequences: np.ndarray
) -> np.ndarray:
    """Return seconds of everything but attention; logits only of each sequence's last token."""
    hidden, ffn = shape.hidden, shape.ffn // tp
    layer = tables.product_s(tokens, shape.qkv // tp, hidden)
    layer = layer + tables.product_s(tokens, hidden, shape.heads * shape.head_dim // tp)
    layer = layer + tables.product_s(tokens, 2 * ffn, hidden)
    layer = layer + tables.product_s(tokens, hidden, ffn)
    layer = layer + 2.0 * tables.vector_s(4.0 * hidden * tokens)
    layer = layer + tables.vector_s(3.0 * ffn * tokens)
    layer = layer + 2.0 * tables.all_reduce_s(hidden * tokens, tp)
    logits = tables.product_s(sequences, shape.vocab // tp, hidden)
    return shape.layers * layer + tables.vector_s(2.0 * hidden * tokens) + logits


def _bracket(grid: np.ndarray, value: float) -> list[tuple[float, float]]:
    """Return the grid values about ``value`` and their weights, in logarithms; clamped."""
    points = np.unique(grid)
    value = float(np.clip(value, points[0], points[-1]))
    above = int(np.searchsorted(points, value))
    if points[above] == value:
        return [(value, 1.0)]
    low, high = points[above - 1], points[above]
    share = float(np.log(value / low) / np.log(high / low))
    return [(float(low), 1.0 - share), (float(high), share)]


def _log_curve(
    table: dict[str, np.ndarray], axis: str, chosen: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Return ln seconds at ``at``; of several kernels the fastest, as an engine would choose."""
    xs, place = np.unique(table[axis][chosen], return_inverse=True)
    best = np.full(len(xs), np.inf)
    np.minimum.at(best, place, table["latency"][chosen])
    beyond = np.maximum(0.0, np.log(at / xs[-1]))  # past the table time grows with size
    return np.interp(np.log(at), np.log(xs), np.log(best)) + beyond


def _release(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", path.parent.name)]


def _version(package: Path) -> str:
    """Return the version that the metadata folder beside the package names."""
    found = sorted(package.parent.glob(f"{MODULE}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else "unknown"
