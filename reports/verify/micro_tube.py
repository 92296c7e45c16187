"""Noise and drift: how far the command strays from a moving equilibrium, against its ISS radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers import certificates
from controllers.certificates.certificate import Certificate
from reports.verify.micro_cases import (
    measure_by_plant,
    pace_of,
    plant_space,
    star_range,
    temperature_unfit,
    x_star,
)
from reports.verify.micro_loop import DRIFTS, NOISES, Loop, Path, run
from reports.verify.micro_story import loop_story
from reports.verify.plants import Plant
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space

CLOSE = 1e-6  # ln T; nearer to the equilibrium than this, the slope there stands for the secant
SLACK = 1e-6  # relative, for rounding
TYPICAL = (1.0, 0.1, 0.01)  # mu, noise, drift of the certificate that is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tube:
    """Measured entropy is off by at most ``noise``, x* moves by at most ``drift`` a step.

    The run starts on the equilibrium, so that there is no transient: the error must stay within
    its radius at every step. mu and v_max are the smallest and largest slope of H that this very
    run met: the secant between measuring point and equilibrium, and V at the measuring point. A
    law without theory, or with drift or noise beyond its theory, has no bound; its value is
    reported.
    """

    name: str = "micro.tube"
    statement: str = "noise and drift: |ln T - x*| stays within the radius for the slopes it met"
    unit: str = "ln T"
    steps: int = 256

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return plants, equilibria, and how logits and sensor are disturbed."""
        return {
            **plant_space(law),
            "noise": Choice(NOISES),
            "noise_nats": Number(1e-3, 1.0, log=True),
            "path": Choice(DRIFTS),
            "drift": Number(1e-5, 0.1, log=True),
        }

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the largest error and its radius, ``[B]``."""

        def one(picked: Cases, plant: Plant) -> Measured:
            path = run(law, plant, self._loop(law, picked))
            value = np.abs(path.error).max(axis=0)
            bound = _radii(law, *slopes_met(path, plant), picked["noise_nats"], picked["drift"])
            return Measured(value, bound * (1.0 + SLACK) + SLACK)

        return measure_by_plant(cases, one)

    def _loop(self, law: Any, cases: Cases) -> Loop:
        star, (low, high) = x_star(cases), star_range(law)
        return Loop(
            steps=self.steps,
            x_user=star,
            x_star=star,
            low=low,
            high=high,
            noise=cases["noise"],
            noise_nats=cases["noise_nats"],
            path=cases["path"],
            drift=cases["drift"],
            seed=cases["seed"],
            pace=pace_of(cases),
        )

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the loop step by step."""
        measured = self.measure(law, {name: np.array([value]) for name, value in case.items()})

        def verdict(path: Path) -> str:
            bound = float(measured.bound[0])
            what = "outside its tube" if np.abs(path.error).max() > bound else "inside its tube"
            return f"error at most {np.abs(path.error).max():.3g}, radius {bound:.3g}: {what}"

        lines = loop_story(law, case, lambda cases: self._loop(law, cases), verdict)
        says = f"sensor off by {case['noise_nats']:.3g} nat ({case['noise']}), x* moves by"
        return [lines[0], f"{says} {case['drift']:.3g} a step ({case['path']})", *lines[1:]]

    def certificate(self, law: Any) -> Certificate | None:
        """Return the radius at mu = 1 nat^2, noise .1 nat, drift .01 a step."""
        return certificates.iss(law, *TYPICAL)


def slopes_met(path: Path, plant: Plant) -> tuple[np.ndarray, np.ndarray]:
    """Return mu and v_max: the smallest and largest slope of H met by each lane, nats^2 ``[B]``."""
    apart = path.error_in
    near = np.abs(apart) < CLOSE
    secant = (path.h_in - path.target) / np.where(near, 1.0, apart)
    at_star = plant.response(path.x_star[0])[1]  # drift moves the plant with its equilibrium
    slopes = np.stack([np.where(near, at_star, secant), path.v_in])
    return np.maximum(slopes.min(axis=(0, 1)), 0.0), slopes.max(axis=(0, 1))


def _radii(
    law: Any, mu: np.ndarray, v_max: np.ndarray, noise_nats: np.ndarray, drift: np.ndarray
) -> np.ndarray:
    """Return the certified radius of each lane, ``[B]``; infinite where there is none."""
    radii = np.full(len(mu), math.inf)
    columns = zip(mu.tolist(), v_max.tolist(), noise_nats.tolist(), drift.tolist(), strict=True)
    for lane, (low, high, noise, move) in enumerate(columns):
        # A lane that met no slope, or was lost to NaN, has no radius.
        if not 0.0 < low <= high < math.inf:
            continue
        proof = certificates.iss(law, low, noise, move, v_max=high)
        if proof is not None and proof.holds:
            radii[lane] = proof.bound
    return radii
