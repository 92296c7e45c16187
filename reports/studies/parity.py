"""Decision parity: a live run's log, replayed by the simulator's side of the house.

L1: every plan recomputed from the logged events, every temperature command recomputed in numpy from
the logged signals, both compared exactly. L2: H that the recorded curves predict at the applied T
against H that the live model gave there. Closed loop: the law fed by curves alone, along the same
path, against the temperatures the live law set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers.presets import Preset, get_preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.request import Request
from controllers.serving.runlog import CommandParity, PlanParity, replay_commands, replay_plans
from simulator.model import TraceModel
from traces.store import Trace

F32 = np.float32
BOUND_NATS = 0.02  # L2


@dataclass(frozen=True, slots=True)
class CurveParity:
    """L2 over the tokens of a trace; nats."""

    tokens: int
    mean_abs_nats: float
    p99_abs_nats: float
    max_abs_nats: float
    loop_max_abs_x: float  # closed loop: largest |ln T simulated - ln T live|
    loop_rms_x: float

    @property
    def within(self) -> bool:
        """Whether every token is within the bound."""
        return self.max_abs_nats <= BOUND_NATS


@dataclass(frozen=True, slots=True)
class Parity:
    """What one run's replay found."""

    plans: PlanParity
    commands: CommandParity
    curves: CurveParity | None
    events: dict[str, int]

    @property
    def holds(self) -> bool:
        """Whether nothing differed and L2, if measured, is within its bound."""
        exact = self.plans.identical and self.commands.identical
        return exact and (self.curves is None or self.curves.within)


def preset_of(rows: list[dict[str, Any]]) -> Preset:
    """Rebuild the preset a log was made with: its laws by name, its settings from the header."""
    settings = dict(rows[0]["preset"])
    return replace(get_preset(settings["name"]), **settings)


def count_events(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Count what a log exercised: requests, preemptions, cancels, sparse and probed rows."""
    plans = [row for row in rows if row["kind"] == "plan"]
    lanes = [lane for row in plans for lane in row["rows"]]
    return {
        "requests": sum(row["kind"] == "submit" for row in rows),
        "steps": len(plans),
        "tokens": sum(lane[3] for lane in lanes),
        "preemptions": sum(len(row["preempted"]) for row in plans),
        "cancels": sum(row["kind"] == "cancel" for row in rows),
        "kill_switches": sum(row["kind"] == "disable" for row in rows),
        "chunked_prefill_rows": sum(not lane[3] for lane in lanes),
        "sparse_rows": sum(lane[4] < 1.0 for lane in lanes),
        "dense_probes": sum(bool(lane[5]) for lane in lanes),
    }


def check(rows: list[dict[str, Any]], trace: Trace | None = None) -> Parity:
    """Replay a log, and with the trace of the same run check its curves."""
    preset = preset_of(rows)
    return Parity(
        plans=replay_plans(rows, preset),
        commands=replay_commands(rows, preset),
        curves=None if trace is None else check_curves(rows, trace, preset),
        events=count_events(rows),
    )


def check_curves(rows: list[dict[str, Any]], trace: Trace, preset: Preset) -> CurveParity:
    """Compare curve predictions with what the live run gave, token by token.

    The trace's prompt ids are ``run/<request id>``: each of its requests is one of the log.
    """
    model = TraceModel.of(trace)
    columns = trace.columns
    x = columns["x_applied"].astype(np.float64)
    predicted, _, _ = model.curves.outcome(np.arange(trace.rows), x)
    error = np.abs(predicted - columns["h_applied"])
    requests = {
        row["request"]["request_id"]: row["request"] for row in rows if row["kind"] == "submit"
    }
    killed = {row["request_id"] for row in rows if row["kind"] == "disable"}
    drift = [
        _closed_loop(model, preset, requests[rid], slice(*trace.slices[i]))
        - x[slice(*trace.slices[i])]
        for i, rid in enumerate(_log_ids(trace, requests))
        if rid not in killed
    ]
    gap = np.abs(np.concatenate(drift)) if drift else np.zeros(1)
    return CurveParity(
        tokens=trace.rows,
        mean_abs_nats=float(error.mean()),
        p99_abs_nats=float(np.quantile(error, 0.99)),
        max_abs_nats=float(error.max()),
        loop_max_abs_x=float(gap.max()),
        loop_rms_x=float(np.sqrt((gap**2).mean())),
    )


def _log_ids(trace: Trace, known: Mapping[int, object]) -> list[int]:
    """Return the log's id of each request of the trace; raise on a trace of another run."""
    ids = []
    for request in trace.requests:
        mark, _, number = request.prompt_id.partition("/")
        if mark != "run" or not number.isdecimal() or int(number) not in known:
            raise ValueError(
                f"{trace.path}: prompt_id: must be run/<id of the log>; got {request.prompt_id!r}"
            )
        ids.append(int(number))
    return ids


def _closed_loop(
    model: TraceModel, preset: Preset, fields: Mapping[str, Any], rows: slice
) -> np.ndarray:
    """Return ln T per token when the law sees only what the curves say."""
    law, table = preset.temperature, LaneTable(preset.temperature, np.zeros(1, F32))
    request = Request(**fields)
    table.add(request)
    slots = table.slots((request.request_id,))
    commands = []
    for position, row in enumerate(range(rows.start, rows.stop)):
        state, last = table.read(slots)
        h_in, v_in = model.curves.entropy(np.array([row]), law.x_in(state))
        signal = last._replace(
            h_cal=model.h_cal[[row]].astype(F32),
            v_cal=model.v_cal[[row]].astype(F32),
            h_in=h_in.astype(F32),
            v_in=v_in.astype(F32),
            position=np.array([position], F32),
        )
        state, command = law.update(state, signal)
        table.write_state(slots, state)
        commands.append(float(command[0]))
    return np.array(commands)
