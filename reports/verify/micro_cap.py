"""The one-sided option is a promise: whatever the entropies say, T never exceeds the cap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers import certificates
from controllers.certificates.certificate import Certificate
from controllers.core import TokenSignal
from reports.verify.hashing import uniforms
from reports.verify.micro_cases import MAX_SEED, temperature_unfit
from reports.verify.micro_loop import token_signal
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space, lanes_of, n_lanes

MOST_NATS = 12.0  # above ln n of any vocabulary
MOST_NATS2 = 40.0  # above N_n of any vocabulary
PATTERNS = ("cold", "alternating", "random", "broken")
SLACK = 1e-9  # ln T; float64 lanes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """With ``x_cap`` = ``x_user`` the command never exceeds the user's ln T.

    Signals are made up, not a plant's: *cold* always asks for more heat, *alternating* swings,
    *random* jumps, *broken* mixes in NaN and infinities.
    """

    name: str = "micro.cap"
    statement: str = "one-sided: T never exceeds the user's, whatever targets and entropies say"
    unit: str = "ln T above the cap"
    steps: int = 64

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return the user's temperature and the pattern of the signals."""
        return {
            "t_user": Number(0.05, 3.0, log=True),
            "pattern": Choice(PATTERNS),
            "seed": Number(0, MAX_SEED, integer=True),
        }

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return how far the command rose above the cap, ``[B]``; below 0 where it never did."""
        commands = self._commands(law, cases)
        over = (commands - np.log(cases["t_user"])).max(axis=0)
        return Measured(over, np.full_like(over, SLACK))

    def _commands(self, law: Any, cases: Cases) -> np.ndarray:
        state, commands = None, []
        with np.errstate(all="ignore"):
            for signal in wild_signals(cases, self.steps):
                state = law.init(signal) if state is None else state
                state, command = law.update(state, signal)
                commands.append(np.array(command, np.float64))
        return np.stack(commands)

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the signals around the first command above the cap."""
        cases = lanes_of(case)
        commands = self._commands(law, cases)[:, 0]
        cap = math.log(case["t_user"])
        above = np.flatnonzero(~(commands - cap <= SLACK))
        at = int(above[0]) if len(above) else 0
        lines = [f"{'step':>5} {'H':>9} {'H*':>9} {'T command':>10} {'cap':>8}"]
        for t, signal in enumerate(wild_signals(cases, self.steps)):
            if at - 4 <= t <= at + 5:
                h, target = signal.h_in[0], signal.target_nats[0]
                lines.append(
                    f"{t:>5} {h:>9.4f} {target:>9.4f} {np.exp(commands[t]):>10.4f} "
                    f"{case['t_user']:>8.4f}"
                )
        what = f"step {at} is above the cap" if len(above) else "never above the cap"
        return [*lines, f"{len(above)} of {self.steps} commands exceed the cap: {what}"]

    def certificate(self, law: Any) -> Certificate | None:
        """Return that the cap is the last operation on the command, for our laws."""
        return certificates.cap(law)


def wild_signals(cases: Cases, steps: int) -> Iterator[TokenSignal]:
    """Yield legal but hostile signals of a pattern and a seed, capped at the user's ln T."""
    lanes, x_user = n_lanes(cases), np.log(cases["t_user"])
    pattern, seed = np.asarray(cases["pattern"]), cases["seed"]
    for t in range(steps):
        u = uniforms(seed, 4, 4 * t)
        swing = 0.0 if t % 2 == 0 else MOST_NATS
        h = np.select(
            [pattern == "cold", pattern == "alternating"], [0.0, swing], MOST_NATS * u[:, 0]
        )
        target = np.select(
            [pattern == "cold", pattern == "alternating"],
            [MOST_NATS * u[:, 1], MOST_NATS - swing],
            MOST_NATS * u[:, 1],
        )
        v = np.where(u[:, 2] < 0.25, 0.0, MOST_NATS2 * u[:, 2])
        wrong = (pattern == "broken") & (u[:, 3] < 0.3)
        bad = np.where(u[:, 3] < 0.1, np.nan, np.where(u[:, 3] < 0.2, np.inf, -np.inf))
        h, v = np.where(wrong, bad, h), np.where(wrong & (u[:, 0] < 0.5), bad, v)
        yield token_signal(
            lanes, x_user=x_user, x_cap=x_user, h_in=h, v_in=v, h_cal=h, v_cal=v,
            target_nats=target, surprisal=MOST_NATS * u[:, 2], position=t,
        )  # fmt: skip
