"""The simulated side of a live validation: the same requests, answered by their recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controllers.preset import Preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from reports.validation.live_load import Asked
from reports.validation.live_observed import Observed
from simulator.arrival import Arrival
from simulator.model import TraceModel
from simulator.residual import Residual
from simulator.run import ClusterConfig, run_workload
from simulator.workload import NS_PER_S, Workload
from traces.store import Trace

COPIES = 8  # of the requests, all at once, where capacity is read: the last batch counts little


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The simulator's engine: recording, limits and prices."""

    model: TraceModel
    residual: Residual
    limits: EngineLimits
    step_law: StepLaw

    @classmethod
    def of(cls, trace: Trace, limits: EngineLimits, step_law: StepLaw, seed: int) -> Twin:
        """Prepare a recording."""
        return cls(
            model=TraceModel.of(trace),
            residual=Residual.fit(trace, seed=seed),
            limits=limits,
            step_law=step_law,
        )

    def serve(self, preset: Preset, asked: Sequence[Asked]) -> Observed:
        """Simulate ``asked``, in order of arrival."""
        config = ClusterConfig(
            preset=preset,
            limits=self.limits,
            step_law=self.step_law,
            bytes_per_page_unit=self.model.page_unit_bytes,
        )
        workload = Workload(
            arrivals=tuple(
                Arrival(
                    request=each.request,
                    arrival_ns=round(each.at_s * NS_PER_S),
                    trace_index=each.recording,
                    output_tokens=each.request.max_tokens,
                )
                for each in asked
            )
        )
        return Observed.of(run_workload(self.model, self.residual, workload, config).ledger)

    def capacity_per_s(self, preset: Preset, asked: Sequence[Asked]) -> float:
        """Return the requests per second at which this engine saturates.

        Eight copies of the requests are there at once; the rate is theirs from the first step to
        the last finish. A load above it lets the queue grow without end.
        """
        many = [
            replace(each, at_s=0.0, request=replace(each.request, request_id=copy * len(asked) + i))
            for copy in range(COPIES)
            for i, each in enumerate(asked)
        ]
        return self.serve(preset, many).totals()["throughput_requests_per_s"]
