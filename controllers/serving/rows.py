"""Log rows: every event of a run as one JSON object, and back without loss.

Float32 lanes become lists of Python floats, which hold them exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

SCHEMA = "entropic-runlog"
VERSION = 1

LogRow = dict[str, Any]  # one JSON object; every row has "kind" and "now_ns"

_SETTINGS = (  # what a preset adds to its laws
    "name",
    "quantum_tokens",
    "probe_every",
    "sparse_min_context",
    "collapse_prior_nats",
    "collapse_prior_weight",
    "kv_budget_pages",
    "kv_burst_pages",
)
_LANES = ("commands", "h_applied", "surprisal")


def header_row(preset: Preset, limits: EngineLimits, step_law: StepLaw, t_cal: float) -> LogRow:
    """Return the first row: all that a replay needs besides the laws themselves."""
    return {
        "kind": "header",
        "now_ns": 0,
        "schema": SCHEMA,
        "version": VERSION,
        "preset": preset_settings(preset),
        "laws": preset.fingerprints(),
        "limits": limits.to_json(),
        "step_law": step_law.to_json(),
        "t_cal": t_cal,
    }


def preset_settings(preset: Preset) -> LogRow:
    """Return the name and the serving parameters of a preset, without its laws."""
    found = {name: getattr(preset, name) for name in _SETTINGS}
    if preset.kv_budget_pages is None:  # the burst has no meaning then; older logs have neither
        found["kv_burst_pages"] = None
    return found


def submit_row(
    request: Request,
    now_ns: int,
    oracle_tokens: int | None = None,
    page_hashes: Sequence[int] = (),
) -> LogRow:
    """Return the row of an arrival; with the true output length only if an oracle law read it.

    Hashes of prompt pages are hexadecimal: a JSON number of 128 bits is not safe with every reader.
    """
    row = {"kind": "submit", "now_ns": int(now_ns), "request": dataclasses.asdict(request)}
    if page_hashes:
        row["page_hashes"] = [f"{name:x}" for name in page_hashes]
    return row if oracle_tokens is None else {**row, "oracle_tokens": int(oracle_tokens)}


def hashes_from_row(row: LogRow) -> tuple[int, ...]:
    """Return the page hashes of a submit row; none where it has none."""
    return tuple(int(name, 16) for name in row.get("page_hashes", ()))


def request_from_row(row: LogRow) -> Request:
    """Rebuild the request of a submit row."""
    return Request(**row["request"])


def plan_row(plan: Plan, now_ns: int, service: Mapping[str, float] | None = None) -> LogRow:
    """Return the row of a plan; its rows are lists in the order of ``Row``'s fields.

    A row that gives up no pages, as most, ends before those fields.

    ``service`` is kept where it compares clients: what each has had, in weighted tokens, after
    the plan's admissions (``ServiceCounters.counters``).
    """
    row = {
        "kind": "plan",
        "now_ns": int(now_ns),
        "step": plan.step,
        "rows": [_row_values(r) for r in plan.rows],
        "preempted": list(plan.preempted),
    }
    return {**row, "service": dict(service)} if service is not None and len(service) > 1 else row


def plan_from_row(row: LogRow) -> Plan:
    """Rebuild the plan of a plan row."""
    return Plan(row["step"], tuple(Row(*values) for values in row["rows"]), tuple(row["preempted"]))


def result_row(result: Result, now_ns: int) -> LogRow:
    """Return the row of a result."""
    row = {
        "kind": "result",
        "now_ns": int(now_ns),
        "step": int(result.step),
        "tokens": [int(token) for token in result.tokens],
        "finished": [[int(i), reason] for i, reason in result.finished.items()],
        "signals": {name: _floats(lanes) for name, lanes in result.signals._asdict().items()},
        **{name: _floats(getattr(result, name)) for name in _LANES},
        "page_units_read": int(result.page_units_read),
        "page_units_dense": int(result.page_units_dense),
        "pages_scored": int(result.pages_scored),
        "duration_ns": int(result.duration_ns),
        "shadow": None if result.shadow is None else _floats(result.shadow),
    }
    if result.evicted:
        row["evicted"] = [[int(i), [int(n) for n in gone]] for i, gone in result.evicted.items()]
    return row


def result_from_row(row: LogRow) -> Result:
    """Rebuild the result of a result row."""
    return Result(
        step=row["step"],
        tokens=tuple(row["tokens"]),
        finished=dict(row["finished"]),
        signals=TokenSignal(**{name: _lanes(values) for name, values in row["signals"].items()}),
        **{name: _lanes(row[name]) for name in _LANES},
        page_units_read=row["page_units_read"],
        page_units_dense=row["page_units_dense"],
        pages_scored=row["pages_scored"],
        duration_ns=row["duration_ns"],
        shadow=None if row["shadow"] is None else _lanes(row["shadow"]),
        evicted={request_id: tuple(gone) for request_id, gone in row.get("evicted", ())},
    )


def _row_values(row: Row) -> list[object]:
    values = [row.request_id, row.start, row.n_tokens, row.samples, row.coverage, row.probe]
    return [*values, row.evict, row.keep_first] if row.evict else values


def _floats(lanes: np.ndarray) -> list[float]:
    # Float64 lanes would not survive the way back; better here than as a false difference later.
    if lanes.dtype != np.float32:
        raise TypeError(f"a log row takes float32 lanes; got {lanes.dtype}")
    return lanes.tolist()


def _lanes(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)
