"""A step law from datasheet numbers: the labelled fallback where nothing was measured.

A step takes the longer of reading the weights and multiplying with them, then reads the KV of its
decode rows and does the arithmetic of prompt attention (a roofline: Williams, Waterman, Patterson,
CACM 2009), each at a stated share of the peak. It knows no kernels and no engine, so it errs by
tens of percent; ``against`` says by how much where a fitted law exists. It is never put in place
of a profile unless asked for.
"""

from __future__ import annotations

import numpy as np

from controllers.core import require
from controllers.steplaw import StepLaw
from traces.profile import Profile
from traces.profiles_devices import Device, estimated_limits
from traces.profiles_fit import StepTable, fit_law, joined
from traces.profiles_shapes import ModelShape

MEMORY_SHARE = 0.8  # of peak bandwidth and of peak arithmetic that good kernels reach;
COMPUTE_SHARE = 0.7  # assumptions, not measurements
LINK_SHARE = 0.7
LINK_START_S = 5e-6  # of one all-reduce
ELEMENT_BYTES = 2  # bfloat16
CREATED = "2026-11-22T00:00:00+00:00"  # when the datasheet table was written

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def roofline_profile(shape: ModelShape, device: Device, tp: int = 1) -> Profile:
    """Return the roofline of ``shape`` on ``tp`` GPUs; its errors are of the affine form alone."""
    shape.check_split(tp)
    limits = estimated_limits(shape, device, tp)
    table = roofline_steps(shape, device, tp, pool_tokens=limits["n_pages"] * limits["page_tokens"])
    fitted = fit_law(table)
    return Profile(
        device=f"NVIDIA {device.name}",
        model=shape.name,
        backend="roofline",
        dtype="bfloat16",
        commit="none",
        created=CREATED,
        versions={},
        ranges=fitted.ranges,
        fit_error={f"affine_{name}": value for name, value in fitted.fit_error.items()},
        step_law=fitted.law.to_json(),
        limits=limits,
        source=(
            f"roofline: {device.source}, at {MEMORY_SHARE:.0%} of bandwidth and "
            f"{COMPUTE_SHARE:.0%} of arithmetic, both assumed; nothing was measured"
        ),
        kind="roofline",
        watts=device.watts,
        gpus=tp,
        limits_estimated=True,
        kv_bytes_per_token=shape.kv_bytes_per_token(),
    )


def roofline_steps(shape: ModelShape, device: Device, tp: int, *, pool_tokens: int) -> StepTable:
    """Return decode-only steps that the pool holds, and prefill-only ones, as a roofline."""
    require(pool_tokens >= 1, "pool_tokens must be >= 1", pool_tokens=pool_tokens)
    pairs = [(b, b * c) for b in BATCHES for c in CONTEXTS if b * c <= 2 * pool_tokens]
    batch, kv = np.array(pairs or [(1, pool_tokens)], float).T
    seconds = _weights_s(shape, device, tp, batch, batch)
    seconds += shape.kv_bytes_per_token(ELEMENT_BYTES) * kv / _memory(device, tp)
    none = np.zeros(len(batch))
    decode = StepTable(batch, kv, none, none, seconds)
    tokens = np.array(PROMPTS, float)
    squares = tokens**2
    seconds = _weights_s(shape, device, tp, tokens, np.ones(len(tokens)))
    # Causal attention: two products of two operations each over half of the L x L pairs.
    attention = 2.0 * shape.layers * shape.heads * shape.head_dim * squares
    seconds += attention / (tp * COMPUTE_SHARE * device.flops_per_s)
    none = np.zeros(len(tokens))
    return joined((decode, StepTable(none, none, tokens, squares, seconds)))


def against(law: StepLaw, fitted: Profile) -> dict[str, float]:
    """Return how far ``law`` is from a fitted profile's law over its range, percent.

    ``decode_mean_pct`` and ``prefill_mean_pct`` are signed means, ``…_mean_abs_pct`` absolute.
    """
    pool = fitted.limits["n_pages"] * fitted.limits["page_tokens"]
    most = fitted.ranges.get("n_decode", (1.0, 1.0))[1]
    pairs = [(b, b * c) for b in BATCHES if b <= most for c in CONTEXTS if b * c <= pool]
    batch, kv = np.array(pairs or [(1, 1)], float).T
    longest = fitted.ranges.get("prompt_tokens", (1.0, 1.0))[1]
    tokens = np.array([p for p in PROMPTS if p <= longest] or [longest])
    found = {}
    for kind, step in (("decode", (batch, kv, 0 * kv, 0 * kv)), ("prefill", None)):
        row = (0 * tokens, 0 * tokens, tokens, tokens**2) if step is None else step
        off = 100.0 * (law.step_s(*row) / fitted.law.step_s(*row) - 1.0)
        found[f"{kind}_mean_pct"] = float(off.mean())
        found[f"{kind}_mean_abs_pct"] = float(np.abs(off).mean())
    return found


def _weights_s(
    shape: ModelShape, device: Device, tp: int, tokens: np.ndarray, sequences: np.ndarray
) -> np.ndarray:
    """Return seconds of the products with weights, and of the all-reduces between them."""
    head = shape.hidden * shape.vocab
    operations = 2.0 * ((shape.matrix_weights - head) * tokens + head * sequences)
    compute = operations / (tp * COMPUTE_SHARE * device.flops_per_s)
    memory = ELEMENT_BYTES * shape.matrix_weights / _memory(device, tp)
    seconds = np.maximum(compute, memory)
    if tp > 1:
        moved = 2.0 * (tp - 1) / tp * ELEMENT_BYTES * shape.hidden * tokens
        each = LINK_START_S + moved / (LINK_SHARE * device.link_bytes_per_s)
        seconds = seconds + 2.0 * shape.layers * each
    return seconds


def _memory(device: Device, tp: int) -> float:
    return tp * MEMORY_SHARE * device.bytes_per_s
