"""coupling.finite_step: temperature and coverage loops closed together, on recorded tokens.

Two runs of a preset see the same tokens; one is disturbed for a few steps. Where the loops contract
over windows, small disturbances die out; that larger ones do is searched. Pruning moves the entropy
by ``h`` per unit of mass dropped.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from controllers.certificates import Certificate, finite_step
from controllers.certificates.coupling import meso_slope
from controllers.certificates.feedback import inner, open_loop
from controllers.core import State
from controllers.presets import Preset
from reports.verify.micro_loop import token_signal
from reports.verify.property import (
    Case,
    Cases,
    Choice,
    Measured,
    Number,
    Property,
    Space,
    lanes_of,
)
from simulator.curves import CurveTable
from simulator.defaults import TRACE

STEPS = 256
KICKED = 8  # steps of disturbance
EARLY = 40  # first steps, the disturbance among them, whose largest distance is the reference
LATE = 32  # last steps, compared with it
WINDOW = 64  # tokens per window of the certificate
H_SLOPE = 2.0  # nats per unit of dropped attention mass, the largest the adversary may choose
NOTHING = 1e-6  # a distance that is none: float32 commands of the same size differ by less
NEAR = "for small errors only"
SPACE: Space = {
    "request": Number(0, 2**16, integer=True),  # counts through the recorded requests
    "start": Number(0, 255, integer=True),  # first recorded token
    "t_user": Number(0.4, 1.5, log=True),
    "target_nats": Number(0.25, 4.0),
    "kick_nats": Number(0.01, 3.0, log=True),  # error of the measured entropy while disturbed
    "kick": Choice(("up", "down")),
    "h": Number(-H_SLOPE, H_SLOPE),
}
TELLING = (0, 1, 2, 4, 7, 8, 12, 20, 32, 64, 128, 224, 240, 255)


class Runs(NamedTuple):
    """Commands of the quiet and of the disturbed run, ``[STEPS, 2, B]``."""

    x: np.ndarray  # ln T
    p: np.ndarray  # coverage

    @property
    def distance(self) -> np.ndarray:
        """Return how far the runs are apart, ln T or coverage, ``[STEPS, B]``."""
        return np.maximum(np.abs(np.diff(self.x, axis=1)), np.abs(np.diff(self.p, axis=1)))[:, 0]


class Recording(NamedTuple):
    """The committed trace: curves, first row and length of each request, V at T_cal."""

    curves: CurveTable
    first: np.ndarray  # int [R]
    length: np.ndarray  # int [R]
    v_cal: np.ndarray  # [rows]


@dataclass(frozen=True, slots=True)
class FiniteStep:
    """A disturbance of one run dies out, or at least does not grow."""

    name: str = "coupling.finite_step"
    statement: str = (
        "both loops on recorded tokens: runs that a disturbance parted come no further apart"
    )
    unit: str = "times the early distance"

    def unfit(self, law: Any) -> str:
        """Return an empty string for a preset."""
        return "" if isinstance(law, Preset) else "needs both loops of a preset"

    def space(self, law: Any) -> Space:
        """Return the tokens, the user's wishes, the disturbance and the effect of pruning."""
        return SPACE

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the largest late distance over the largest early one, ``[B]``; 0 for none."""
        early, late = _parts(run(law, cases).distance)
        value = np.where(late > NOTHING, late / np.maximum(early, NOTHING), 0.0)
        return Measured(value, np.full(len(value), 1.0))

    def story(self, law: Any, case: Case) -> list[str]:
        """Return both runs side by side."""
        runs = run(law, lanes_of(case))
        early, late = (float(part[0]) for part in _parts(runs.distance))
        shape = "{:>6} {:>9} {:>9} {:>9} {:>9} {:>10}"
        names = ("step", "T quiet", "T kicked", "p quiet", "p kicked", "distance")
        lines = [shape.format(*names)]
        for t in TELLING:
            temperatures, coverages = np.exp(runs.x[t, :, 0]), runs.p[t, :, 0]
            numbers = [f"{v:.4f}" for v in (*temperatures, *coverages, runs.distance[t, 0])]
            lines.append(shape.format(t, *numbers))
        end = f"distance {early:.3g} in the first {EARLY} steps, {late:.3g} in the last {LATE}"
        grew = "the runs part: no contraction" if late > early else "no growth"
        return [*lines, f"{end}: {grew}"]

    def certificate(self, law: Any) -> Certificate | None:
        """Return the product of comparison matrices over the windows of the committed trace.

        It bounds errors near the moving equilibrium. Runs that part far, under a dwell and rates,
        are another matter: of them it is no proof, except where neither law feeds back.
        """
        proof = finite_step(law, windows(), h=H_SLOPE)
        if proof is None or not proof.holds or _without_feedback(law):
            return proof
        return dataclasses.replace(
            proof,
            holds=False,
            statement=f"{NEAR}, {proof.statement}",
            assumptions=(
                *proof.assumptions,
                "V at the applied T is as at T_cal, where windows have it",
            ),
        )


def run(preset: Preset, cases: Cases) -> Runs:
    """Run ``preset`` twice on each case's tokens, the second time disturbed."""
    recording, lanes = _recording(), len(cases["request"])
    at = np.asarray(cases["request"], np.int64) % len(recording.first)
    first, length = recording.first[at], recording.length[at]
    start = np.asarray(cases["start"], np.int64)
    kick = np.where(cases["kick"] == "up", 1.0, -1.0) * cases["kick_nats"]
    kick = np.concatenate([np.zeros(lanes), kick])
    x_user = np.tile(np.log(np.asarray(cases["t_user"], np.float64)), 2)
    target = np.tile(np.asarray(cases["target_nats"], np.float64), 2)
    h_slope = np.tile(np.asarray(cases["h"], np.float64), 2)
    base = token_signal(2 * lanes, x_user=x_user, target_nats=target)
    x_state: State = preset.temperature.init(base)
    p_state: State = preset.coverage.init(base)
    p = np.ones(2 * lanes)
    x_path, p_path = [], []
    for t in range(STEPS):
        rows = np.tile(first + (start + t) % length, 2)
        h_in, v_in = recording.curves.entropy(rows, _inside(preset.temperature.x_in(x_state)))
        h_cal, v_cal = recording.curves.entropy(rows, np.zeros(2 * lanes))
        pruned = h_slope * (1.0 - p)  # pages dropped for this token move its entropy
        h_in = np.maximum(h_in + pruned + (kick if t < KICKED else 0.0), 0.0)
        h_cal = np.maximum(h_cal + pruned, 0.0)
        position = np.full(2 * lanes, float(t))
        signal = base._replace(
            h_in=h_in, v_in=v_in, h_cal=h_cal, v_cal=v_cal, surprisal=h_cal, position=position
        )
        x_state, x = preset.temperature.update(x_state, signal)
        p_state, p = preset.coverage.update(p_state, signal)
        x_path.append(np.array(x, np.float64))
        p_path.append(np.array(p, np.float64))
    return Runs(*(np.stack(path).reshape(STEPS, 2, lanes) for path in (x_path, p_path)))


def windows() -> np.ndarray:
    """Return V at T_cal along whole windows of each recorded request, nats^2 ``[W, WINDOW]``."""
    recording = _recording()
    found = [
        recording.v_cal[begin : begin + WINDOW]
        for first, length in zip(recording.first, recording.length, strict=True)
        for begin in range(first, first + length - WINDOW + 1, WINDOW)
    ]
    return np.maximum(np.stack(found), 0.0)


def _without_feedback(preset: Preset) -> bool:
    """Tell whether both laws forget a disturbance at once: open loop, and one coverage for all."""
    return open_loop(inner(preset.temperature)) and meso_slope(preset.coverage) == 0.0


def _parts(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return distance[:EARLY].max(axis=0), distance[-LATE:].max(axis=0)


def _inside(x: np.ndarray) -> np.ndarray:
    nodes = _recording().curves.x_nodes  # nothing is extrapolated
    return np.clip(np.where(np.isfinite(x), x, 0.0), nodes[0], nodes[-1]).astype(np.float64)


@cache  # reading the trace takes half a second, and it never changes
def _recording() -> Recording:
    from simulator.model import TraceModel
    from traces.store import read_trace

    model = TraceModel.of(read_trace(TRACE))
    first, length = model.slices[:, 0], np.diff(model.slices, axis=1)[:, 0]
    whole = length >= WINDOW
    return Recording(model.curves, first[whole], length[whole], model.v_cal)


PROPERTIES: tuple[Property, ...] = (FiniteStep(),)
