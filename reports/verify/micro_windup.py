"""Anti-windup: after a set-point out of reach, a law must answer the next one at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers import certificates
from controllers.certificates.certificate import Certificate
from reports.verify.micro_cases import (
    delay_of,
    measure_by_plant,
    pace_of,
    plant_of,
    plant_space,
    plant_words,
    temperature_unfit,
    x_star,
)
from reports.verify.micro_loop import USER_HIGH, USER_LOW, Loop, Path, run
from reports.verify.micro_story import table
from reports.verify.plants import Plant
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space, lanes_of

FORCED = 128  # steps with the set-point out of reach
AFTER = 64  # steps watched afterwards
ALLOWED = 16  # steps to leave the rail, besides the law's own delay
HEADROOM = 0.05  # ln T from the start up to the user's cap, where that is the rail
CLEAR_NATS = 0.25  # smallest difference of entropies that asks for a move
MOVED = 1e-9  # ln T
NEVER = AFTER + 1.0  # steps, for a command that stays where it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Windup:
    """H* out of reach for 128 steps, then well inside and on the other side of the start.

    The rails are the law's own hottest and coldest T, and the user's cap. Value: steps after the
    change until the command first moves back inward. Lanes whose entropy hardly answers to T (less
    than .25 nat), or whose command was not pushed at all, count as 0; a command that stays where
    it was, or is driven further out, counts as 65.
    """

    name: str = "micro.windup"
    statement: str = (
        "after 128 steps of unreachable H*, the command leaves its rail within 16 steps"
    )
    unit: str = "steps"

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return plants, the later equilibrium, and how H* is out of reach."""
        return {
            **plant_space(law),
            "rail": Choice(("hot", "cold", "cap")),
            "excess": Number(0.01, 4.0, log=True),  # nats beyond the rail, while legal
            "away": Number(0.1, 1.5),  # from the later equilibrium to the start, ln T
        }

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return how many steps the command stays on its rail, ``[B]``."""
        bound = float(ALLOWED + delay_of(law))

        def one(picked: Cases, plant: Plant) -> Measured:
            value = _stuck_steps(run(law, plant, _loop(picked, plant)), plant)
            return Measured(value, np.full_like(value, bound))

        return measure_by_plant(cases, one)

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the loop around the change of set-point."""
        cases = lanes_of(case)
        plant = plant_of(case["plant"], cases)
        path = run(law, plant, _loop(cases, plant))
        stuck = _stuck_steps(path, plant)[0]
        left = FORCED + (0 if np.isnan(stuck) else int(stuck))
        shown = {0, 8, FORCED - 1, *range(FORCED, FORCED + 4), left - 1, left, len(path.u) - 1}
        first = f"the first inward move comes {stuck:.0f} steps"
        answer = first if stuck <= AFTER else f"no inward move in the {AFTER} steps"
        what = "it stays on its rail" if stuck > ALLOWED + delay_of(law) else "no windup"
        return [
            f"plant: {plant_words(case)}",
            f"H* is out of reach (rail: {case['rail']}) for {FORCED} steps, then reachable",
            *table(path, sorted(t for t in shown if t < len(path.u))),
            f"{answer} after the change: {what}",
        ]

    def certificate(self, law: Any) -> Certificate | None:
        """Return the bound that follows from keeping the clipped command as the only state."""
        return certificates.windup(law)


def _loop(cases: Cases, plant: Plant) -> Loop:
    hot = cases["rail"] != "cold"
    star = x_star(cases)
    # The start lies towards the rail, so that the later set-point is on its far side.
    start = np.clip(star + np.where(hot, 1.0, -1.0) * cases["away"], USER_LOW, USER_HIGH)
    top = np.minimum(_entropy(plant, USER_HIGH) + cases["excess"], plant.most_nats())
    bottom = np.maximum(_entropy(plant, USER_LOW) - cases["excess"], 0.0)
    forced = np.where(hot, top, bottom)
    return Loop(
        steps=FORCED + AFTER,
        x_user=start,
        x_star=star,
        forced_nats=forced,
        forced_steps=FORCED,
        x_cap=np.where(cases["rail"] == "cap", start + HEADROOM, math.inf),
        pace=pace_of(cases),
    )


def _entropy(plant: Plant, x: float) -> np.ndarray:
    return plant.response(np.full(plant.lanes, x))[0]


def _stuck_steps(path: Path, plant: Plant) -> np.ndarray:
    """Return the step, counted from 1, of the first inward move after the change, ``[B]``."""
    start, end = path.x_in[0], path.u[FORCED - 1]
    h_start = plant.response(start)[0]
    push = np.sign(end - start)
    pushed = np.abs(end - start) > MOVED
    clear = np.abs(h_start - path.target[-1]) >= CLEAR_NATS
    inward = push * (path.u[FORCED:] - end) < -MOVED
    first = np.where(inward.any(axis=0), inward.argmax(axis=0) + 1.0, NEVER)
    lost = np.isnan(path.u).any(axis=0)
    return np.where(lost, math.nan, np.where(pushed & clear, first, 0.0))
