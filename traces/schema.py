"""The recorded entropy trace: one row per generated token, versioned.

A trace answers "what would H have been at another temperature, or with fewer pages?" It holds H
and V at fixed nodes of ln T (dH/dlnT = V, so the pair gives a cubic Hermite interpolant), the
kept-page share at fixed coverages, and on a subsample what pruned attention really did to H.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SCHEMA_NAME = "entropic-trace"
SCHEMA_VERSION = 1

# Temperatures of the nodes, closer where rows melt. With T_cal = 1 as a tenth node (recorded as
# h_cal and v_cal) the cubic is off by .0008 nat rms and .014 at worst on 600 SmolLM2 rows at 61
# temperatures; nine evenly spaced ones over .25-2.0 were off by .0049 and .084.
T_NODES = np.array([0.3, 0.5, 0.7, 0.9, 1.15, 1.3, 1.45, 1.6, 1.8])
X_NODES = np.log(T_NODES)  # fixed nodes of ln T, [9]
COVERAGES = np.array([0.80, 0.90, 0.95, 0.98, 0.99])  # recorded coverages, [5]; 1.0 is dense
SCORERS = ("mean_std", "oracle")  # page-mass estimators recorded, [2]
PRUNED_NODES = (1, 3, 6)  # indices into X_NODES where pruned H is kept, [3]

N, C, S, P = len(X_NODES), len(COVERAGES), len(SCORERS), len(PRUNED_NODES)


def _list(dtype: pa.DataType, size: int) -> pa.DataType:
    return pa.list_(dtype, size)


TOKENS = pa.schema(
    [
        pa.field("request", pa.int32(), nullable=False),  # index into the request table
        # generated tokens before this one
        pa.field("position", pa.int32(), nullable=False),
        # tokens attended to, this one's query included
        pa.field("context", pa.int32(), nullable=False),
        pa.field("token", pa.int32(), nullable=False),  # sampled token id
        pa.field("x_applied", pa.float32(), nullable=False),  # ln T it was sampled at
        # H there, nats (second pass)
        pa.field("h_applied", pa.float32(), nullable=False),
        # -ln p(token) at T = 1, nats
        pa.field("surprisal", pa.float32(), nullable=False),
        pa.field("h_cal", pa.float32(), nullable=False),  # H at T_cal, nats
        pa.field("v_cal", pa.float32(), nullable=False),  # V at T_cal, nats^2
        pa.field("h", _list(pa.float32(), N), nullable=False),  # H at X_NODES
        pa.field("v", _list(pa.float32(), N), nullable=False),  # V at X_NODES
        # [S * C], scorer-major, page size of the metadata, after pins and floors:
        # share, mean over layers and KV heads
        pa.field("kept_mean", _list(pa.float32(), S * C), nullable=False),
        # share, largest head of any layer
        pa.field("kept_max", _list(pa.float32(), S * C), nullable=False),
        # true attention mass left out, mean
        pa.field("dropped", _list(pa.float32(), S * C), nullable=False),
        # share of pages no layer or head wants
        pa.field("evictable", _list(pa.float32(), S * C), nullable=False),
        # Subsample only (null elsewhere), for the first scorer, [C * P] and [C]:
        # H at X_NODES[PRUNED_NODES] under pruned attention
        pa.field("h_pruned", _list(pa.float32(), C * P)),
        # KL(dense || pruned) at T = 1, nats
        pa.field("kl_pruned", _list(pa.float32(), C)),
    ]
)

REQUESTS = pa.schema(
    [
        pa.field("request", pa.int32(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),  # "<source>/<row>"
        pa.field("task_class", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("prompt_sha256", pa.string(), nullable=False),  # of the prompt's text
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),  # "stop" or "length"
        # the user's T while recording
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)

METADATA_KEYS = (  # JSON strings in the Parquet metadata of the token file
    "schema",
    "version",
    "model",
    "weights_sha256",
    "t_cal",
    "page_tokens",
    "layers",
    "kv_heads",
    "page_unit_bytes",  # K and V of one page, one layer, one KV head
    "pins",
    "command",
    "commit",  # of this repository, "-dirty" where the tree had changes
    "versions",
    "rows",
    "requests",
)
