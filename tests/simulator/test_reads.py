"""What a law reads decides what is measured for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from controllers import ops
from controllers.compose import Gated, delayed
from controllers.core import TokenSignal
from controllers.coverage import EntropyCoverage, SeedCoverage
from controllers.ops import Array
from controllers.preset import Preset
from controllers.presets import PRESETS, get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from controllers.temperature import EntropyFeedback, FeedforwardNewton, FixedTemperature
from simulator import ClusterConfig, Residual, TraceModel, poisson_workload, run_workload
from simulator.law_run import first_lanes
from simulator.reads import EVERYTHING, FIXED, fields_read
from simulator.scan import scannable
from simulator.trajectories import Trajectories
from traces.store import Trace


class Counted(NamedTuple):
    """Tokens seen so far, ``[B]``."""

    x: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprised:
    """Cools after a surprising token, warms late and at flat rows: reads what others do not."""

    def init(self, signal: TokenSignal) -> Counted:
        return Counted(signal.x_user * 1.0)

    def update(self, state: Counted, signal: TokenSignal) -> tuple[Counted, Array]:
        move = 0.02 * signal.surprisal - 0.001 * signal.position - 0.01 * signal.v_cal
        x = ops.clip(state.x - move + 0.005 * signal.h_cal, -1.0, 0.5)
        return Counted(x), x

    def x_in(self, state: Counted) -> Array:
        return state.x


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """A coverage law that breaks its contract: it reads H at the applied temperature."""

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        return state, ops.clip(0.9 + 0.01 * signal.h_in, 0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """Takes its signal apart by place, so that nobody can tell what it looks at."""

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        h_cal, *_ = signal
        return state, h_cal


def test_reads_are_found_through_wrappers() -> None:
    assert fields_read(FixedTemperature()) == {"x_user"}
    assert fields_read(Gated(law=FixedTemperature())) <= FIXED
    assert fields_read(EntropyFeedback()) == {"h_in", "v_in", "target_nats", "x_cap"}
    assert "h_in" in fields_read(Gated(law=delayed(EntropyFeedback())))
    assert not fields_read(Gated(law=FeedforwardNewton())) & {"surprisal", "h_cal", "position"}
    assert fields_read(EntropyCoverage()) == {"h_cal", "enabled"}
    assert fields_read(SeedCoverage()) == {"h_cal", "enabled"}
    assert {"surprisal", "position", "v_cal", "h_cal"} <= fields_read(Surprised())
    assert fields_read(Unpacking()) == EVERYTHING


def test_every_shipped_preset_can_be_scanned_and_a_law_out_of_contract_cannot(
    trace: Trace, model: TraceModel, residual: Residual
) -> None:
    assert all(scannable(preset) for preset in PRESETS.values())
    broken = dataclasses.replace(get_preset("full"), coverage=Warm())
    assert not scannable(broken)
    with pytest.raises(ValueError, match=r"T_cal only; got \['h_in'\]"):
        Trajectories(
            model,
            residual,
            broken,
            poisson_workload(trace, rate_per_s=1.0, n_requests=1, seed=0).arrivals,
            seed=0,
        ).of(0)


def _preset() -> Preset:
    full = get_preset("full")
    return dataclasses.replace(full, temperature=Gated(law=Surprised()), sparse_min_context=50)


def test_lanes_are_cut_through_states_that_hold_nothing() -> None:
    lanes = np.arange(5.0)
    assert first_lanes(((), Counted(lanes)), 3)[1].x.tolist() == [0.0, 1.0, 2.0]
    same = (Counted(lanes), ())
    assert first_lanes(same, 5) is same
    assert first_lanes(((), ()), 3) == ((), ())


def test_a_law_that_reads_surprisal_and_position_is_given_them(
    trace: Trace, model: TraceModel, residual: Residual, step_law: StepLaw
) -> None:
    config = ClusterConfig(
        preset=_preset(),
        limits=EngineLimits(max_seqs=8, token_budget=256, n_pages=400, max_context=512),
        step_law=step_law,
        bytes_per_page_unit=4096,
        mode="online",
    )
    workload = poisson_workload(trace, rate_per_s=40.0, n_requests=9, seed=3)
    tokens = run_workload(model, residual, workload, config).ledger.tokens
    found = Trajectories(model, residual, _preset(), workload.arrivals, seed=0)
    for arrival in workload.arrivals:
        mine = tokens["request_id"] == arrival.request.request_id
        made = found.of(arrival.request.request_id)
        assert np.array_equal(made.command, tokens["command"][mine])
        assert np.array_equal(made.surprisal, tokens["surprisal"][mine])
        assert len(np.unique(made.command)) > 2
