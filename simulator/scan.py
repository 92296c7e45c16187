"""What the temperature and coverage laws will do to every token, computed before any clock runs.

Micro and meso read nothing about load or duration, so a request's temperatures, coverages and
entropies do not depend on when it is served. All requests are therefore run through the very law
objects in one pass over token positions, thousands of lanes at a time, and a simulation need only
look its tokens up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core import State, TokenSignal, tree_map
from controllers.presets import Preset
from controllers.serving.lane_table import fixed_signal
from controllers.serving.request import Request
from simulator.model import TraceModel
from simulator.residual import Residual, response

F32 = np.float32
BLOCK_LANES = 2048  # lanes scanned at once: enough to hide numpy's overhead, small in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to scan."""

    request: Request
    rows: np.ndarray  # int [L], the recorded row that answers for each generated token
    normals: np.ndarray  # float64 [L], standard normal of each token's residual


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Everything a ledger or a step needs to know of one request's tokens, ``[L]`` each."""

    coverage: np.ndarray  # float64, attention mass asked of the row that samples the token
    share: np.ndarray  # float64, pages that row reads
    probe: np.ndarray  # bool, dense only to measure
    command: np.ndarray  # float32, ln T
    h_applied: np.ndarray  # float32, nats
    h_cal: np.ndarray  # float32, nats
    surprisal: np.ndarray  # float32, nats, expected NLL at T = 1


def scan(
    jobs: Sequence[Job], model: TraceModel, residual: Residual, preset: Preset
) -> list[Trajectory]:
    """Return the trajectory of each job, in order; the laws are those of ``preset``."""
    found: list[Trajectory | None] = [None] * len(jobs)
    by_length = sorted(range(len(jobs)), key=lambda i: -len(jobs[i].rows))
    for start in range(0, len(jobs), BLOCK_LANES):
        block = by_length[start : start + BLOCK_LANES]
        made = _Block([jobs[i] for i in block], model, residual, preset).run()
        for index, trajectory in zip(block, made, strict=True):
            found[index] = trajectory
    return [trajectory for trajectory in found if trajectory is not None]


class _Block:
    """Lanes in order of falling length, so that those still running are always a prefix."""

    def __init__(
        self, jobs: list[Job], model: TraceModel, residual: Residual, preset: Preset
    ) -> None:
        self._jobs, self._model, self._residual, self._preset = jobs, model, residual, preset
        requests = [job.request for job in jobs]
        self._lengths = np.array([len(job.rows) for job in jobs])
        longest = int(self._lengths[0])
        self._rows = np.zeros((longest, len(jobs)), np.intp)
        self._normals = np.zeros((longest, len(jobs)))
        for lane, job in enumerate(jobs):
            self._rows[: len(job.rows), lane] = job.rows
            self._normals[: len(job.rows), lane] = job.normals
        self._signal = _signals(requests)
        self._prompt = np.array([r.prompt_tokens for r in requests])
        self._ids = np.array([r.request_id for r in requests])
        self._meso = np.array([r.enabled for r in requests], F32)  # greedy requests too
        self._greedy = np.array([r.greedy for r in requests], bool)
        self._out = {
            name: np.zeros((longest, len(jobs)), kind)
            for name, kind in (
                ("coverage", np.float64), ("share", np.float64), ("probe", bool), ("command", F32),
                ("h_applied", F32), ("h_cal", F32), ("surprisal", F32),
            )
        }  # fmt: skip

    def run(self) -> list[Trajectory]:
        law = self._preset.temperature
        state, meso, wanted = law.init(self._signal), None, np.ones(len(self._jobs))
        surprisal = self._signal.surprisal
        with np.errstate(invalid="ignore", over="ignore"):  # laws state what they do with NaN
            for t in range(len(self._rows)):
                n = int(np.searchsorted(-self._lengths, -t, "left"))
                state, meso = _first(state, n), meso if meso is None else _first(meso, n)
                state, signal, surprisal = self._token(t, n, state, wanted[:n], surprisal[:n])
                signal = signal._replace(enabled=self._meso[:n])
                if meso is None:
                    meso = self._preset.coverage.init(signal)
                meso, wanted = self._preset.coverage.update(meso, signal)
        return [
            Trajectory(**{name: values[:length, lane] for name, values in self._out.items()})
            for lane, length in enumerate(self._lengths.tolist())
        ]

    def _token(
        self, t: int, n: int, state: State, wanted: np.ndarray, surprisal: np.ndarray
    ) -> tuple[State, TokenSignal, np.ndarray]:
        """Sample token ``t`` of the first ``n`` lanes; the order of a live step is kept."""
        model, law, rows = self._model, self._preset.temperature, self._rows[t, :n]
        coverage, probe = self._coverage(t, n, wanted)
        share = model.shares.share(rows, coverage)
        factor = self._residual.factor(coverage, share, self._normals[t, :n])
        h_cal, v_cal = model.h_cal[rows], model.v_cal[rows]
        h_in, v_in = model.curves.entropy(rows, law.x_in(state))
        signal = TokenSignal(*(leaf[:n] for leaf in self._signal))._replace(
            h_cal=(h_cal + factor * response(h_cal, v_cal)).astype(F32),
            v_cal=v_cal.astype(F32),
            h_in=(h_in + factor * response(h_in, v_in)).astype(F32),
            v_in=v_in.astype(F32),
            surprisal=surprisal,
            position=np.full(n, t, F32),
        )
        state, command = law.update(state, signal)
        greedy = self._greedy[:n]
        h, v, nll = model.curves.outcome(rows, np.where(greedy, model.curves.x_nodes[0], command))
        h_applied = (h + factor * response(h, v)).astype(F32)
        kept = (
            ("coverage", coverage), ("share", share), ("probe", probe), ("command", command),
            ("h_applied", np.where(greedy, signal.h_cal, h_applied)), ("h_cal", signal.h_cal),
            ("surprisal", nll.astype(F32)),
        )  # fmt: skip
        for name, values in kept:
            self._out[name][t, :n] = values
        return state, signal, nll.astype(F32)

    def _coverage(self, t: int, n: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the rules of ``CoverageControl.row`` to the commands of one step ago."""
        preset = self._preset
        sparse = (wanted > 0.0) & (wanted < 1.0) & (self._meso[:n] > 0.0) & (t > 0)
        sparse &= self._prompt[:n] + t >= preset.sparse_min_context
        probe = np.zeros(n, bool)
        if preset.probe_every > 0:
            probe = sparse & ((t + self._ids[:n]) % preset.probe_every == 0)
        return np.where(sparse & ~probe, wanted.astype(np.float64), 1.0), probe


def _signals(requests: list[Request]) -> TokenSignal:
    """Return what the requests fix of their signals, one lane each."""
    lanes = [fixed_signal(request, np.zeros(1, F32)) for request in requests]
    return TokenSignal(*(np.concatenate(leaves) for leaves in zip(*lanes, strict=True)))


def _first(state: State, n: int) -> State:
    return tree_map(lambda leaf: leaf[:n], state)
