"""A recorded trace, prepared to answer for the model: built once, shared by every replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from simulator.curves import CurveTable
from simulator.pruning import ShareTable

if TYPE_CHECKING:
    from traces.store import Trace

COINCIDES = 1e-3  # of ln T: a node this near to T_cal already stands for it


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceModel:
    """What the recording says about every token, as arrays with one row per recorded token."""

    curves: CurveTable
    shares: ShareTable
    h_cal: np.ndarray  # float64 [rows], at the recording's calibration temperature
    v_cal: np.ndarray  # float64 [rows]
    tokens: list[int]  # recorded token ids
    slices: np.ndarray  # int [requests, 2]: first row and one past the last
    ends_itself: np.ndarray  # bool [requests]: the recording ended by a stop token
    t_cal: float
    page_tokens: int
    layers: int
    kv_heads: int
    page_unit_bytes: int  # K and V of one page, one layer, one KV head

    def __post_init__(self) -> None:
        for name in ("layers", "kv_heads"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1", **{name: getattr(self, name)})

    @classmethod
    def of(cls, trace: Trace, *, scorer: str = "mean_std") -> TraceModel:
        """Prepare ``trace``; page shares are those of ``scorer``, a page-mass estimator."""
        from traces.schema import COVERAGES, SCORERS, X_NODES

        require(scorer in SCORERS, f"scorer must be one of {SCORERS}", scorer=scorer)
        columns, metadata = trace.columns, trace.metadata
        kept = columns["kept_mean"][:, SCORERS.index(scorer)]
        return cls(
            curves=_curves(trace, X_NODES),
            shares=ShareTable.of(COVERAGES, kept),
            h_cal=columns["h_cal"].astype(np.float64),
            v_cal=columns["v_cal"].astype(np.float64),
            tokens=columns["token"].tolist(),
            slices=np.asarray(trace.slices),
            ends_itself=np.array([r.finish_reason == "stop" for r in trace.requests], bool),
            t_cal=float(metadata["t_cal"]),
            page_tokens=int(metadata["page_tokens"]),
            layers=int(metadata["layers"]),
            kv_heads=int(metadata["kv_heads"]),
            page_unit_bytes=int(metadata["page_unit_bytes"]),
        )

    def recorded_tokens(self, index: int) -> int:
        """Return how many tokens request ``index`` of the trace generated."""
        return int(self.slices[index, 1] - self.slices[index, 0])


def _curves(trace: Trace, x_nodes: np.ndarray) -> CurveTable:
    """Return the table of every recorded node, T_cal among them where it is not one already."""
    h, v = trace.columns["h"], trace.columns["v"]
    x_cal = np.log(float(trace.metadata["t_cal"]))
    at = int(np.searchsorted(x_nodes, x_cal))
    inside = 0 < at < len(x_nodes)
    if inside and np.abs(x_nodes - x_cal).min() > COINCIDES:
        x_nodes = np.insert(x_nodes, at, x_cal)
        h = np.insert(h, at, trace.columns["h_cal"], axis=1)
        v = np.insert(v, at, trace.columns["v_cal"], axis=1)
    return CurveTable.of(x_nodes, h, v)
