"""Which mode runs a simulation, and the making of its servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import simpy

from controllers.core import require
from controllers.presets import Preset
from controllers.serving.admission import Oracle
from controllers.serving.decisions import Witness
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop, Sink
from controllers.steplaw import StepLaw
from simulator.array_laws import CalledLaws
from simulator.array_life import TrajectorySource
from simulator.array_replica import ArrayReplica
from simulator.arrival import ArrivalTable
from simulator.executor import TraceExecutor
from simulator.late import LateServer
from simulator.model import TraceModel
from simulator.recordings import Recordings
from simulator.replica import Replica
from simulator.residual import Residual
from simulator.scan_coverage import scannable
from simulator.server import OnFinish, Server
from simulator.workload import Workload

ModeName = Literal["auto", "macro", "steps", "calls", "online"]
Mode = Literal["macro", "steps", "calls", "online"]
AHEAD: tuple[Mode, ...] = ("macro", "steps")  # read trajectories that are scanned ahead
Sinks = Callable[[int], Sink | None]  # number of a server -> where its run log goes
Witnesses = Callable[[int], Witness | None]  # number of a server -> who is told its decisions


def choose_mode(
    asked: ModeName, preset: Preset, workload: Workload, *, logged: bool, windows: bool
) -> tuple[Mode, str]:
    """Return the mode that runs and why; ValueError where ``asked`` cannot.

    Macro-steps and exact steps read trajectories scanned ahead, so that they serve neither shared
    prompts nor evicted pages, and write no run log; nor does ``calls``, which differs in that laws
    are called at every step. ``calls`` and ``online`` serve no window of a request.
    """
    require(asked in get_args(ModeName), f"mode must be one of {get_args(ModeName)}", mode=asked)
    needs = needs_online(preset, workload, logged=logged)
    if windows:
        serves = asked not in ("calls", "online")
        require(serves, f"mode {asked} serves no prefill and decode groups", mode=asked)
        require(needs is None, f"{needs}: prefill and decode groups cannot do that", mode=asked)
    if asked == "online" or (asked == "auto" and needs is not None):
        return "online", needs or "asked for"
    require(needs is None, f"{needs}: only mode online does that", mode=asked)
    return ("macro", "nothing needs a slower mode") if asked == "auto" else (asked, "asked for")


def needs_online(preset: Preset, workload: Workload, *, logged: bool) -> str | None:
    """Return what only mode online does in this run; None: nothing."""
    if logged:
        return "a run log or a decision log is kept"
    if preset.kv_budget_pages is not None:
        return "the preset evicts pages"
    if not scannable(preset):
        return "the preset's laws read what a scan does not know"
    if _shares_pages(workload):
        return "requests share prompt pages"
    return None


def _shares_pages(workload: Workload) -> bool:
    arrivals = workload.arrivals
    if isinstance(arrivals, ArrivalTable):
        return arrivals.prefixes is not None
    return any(arrival.page_hashes for arrival in arrivals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFactory:
    """Makes servers of one mode; each has its own ledger."""

    env: simpy.Environment
    mode: Mode
    model: TraceModel
    residual: Residual
    trajectories: TrajectorySource | None  # in the modes ``AHEAD``
    recordings: Recordings | None  # in mode calls
    preset: Preset
    seed: int
    oracle: Oracle | None
    record_tokens: bool
    record_steps: bool
    totals_from_ns: int
    verify: bool
    sinks: Sinks | None
    witnesses: Witnesses | None
    on_finish: OnFinish

    def make(self, number: int, limits: EngineLimits, step_law: StepLaw) -> Server:
        """Return a fresh server that runs in ``env``."""
        ledger = Ledger(
            record_tokens=self.record_tokens,
            record_steps=self.record_steps,
            totals_from_ns=self.totals_from_ns,
        )
        made = self._made(number, limits, step_law, ledger)
        return LateServer(self.env, made) if limits.plans_ahead else made

    def _made(self, number: int, limits: EngineLimits, step_law: StepLaw, ledger: Ledger) -> Server:
        if self.mode == "online":
            return self._online(number, limits, step_law, ledger)
        return ArrayReplica(
            self.env,
            limits=limits,
            preset=self.preset,
            step_law=step_law,
            trajectories=self._source(limits),
            units_per_page=self.model.layers * self.model.kv_heads,
            ledger=ledger,
            mode=self.mode,
            lowest_coverage=float(self.model.shares.coverages[0]),
            oracle=self.oracle,
            on_finish=self.on_finish,
            verify=self.verify,
        )

    def _source(self, limits: EngineLimits) -> TrajectorySource:
        """Return what the laws do, for one server."""
        if self.mode != "calls":
            assert self.trajectories is not None, "nothing is scanned ahead"
            return self.trajectories
        assert self.recordings is not None, "mode calls reads recordings"
        return CalledLaws(
            self.model,
            self.residual,
            self.preset,
            self.recordings,
            max_context=limits.max_context,
        )

    def _online(
        self, number: int, limits: EngineLimits, step_law: StepLaw, ledger: Ledger
    ) -> Replica:
        loop = ServingLoop(
            limits,
            self.preset,
            step_law,
            sink=None if self.sinks is None else self.sinks(number),
            t_cal=self.model.t_cal,
            ledger=ledger,
            oracle=self.oracle,
            witness=None if self.witnesses is None else self.witnesses(number),
        )
        executor = TraceExecutor(
            self.model,
            self.preset,
            step_law,
            residual=self.residual,
            seed=self.seed,
            twin_coverage=loop.twin_coverage,
        )
        return Replica(self.env, loop, executor, on_finish=self.on_finish, verify=self.verify)
