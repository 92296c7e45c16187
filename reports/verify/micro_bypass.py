"""A request that is switched off is left alone: exactly the user's T, and the state waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers import certificates
from controllers.certificates.certificate import Certificate
from controllers.compose import Gated
from controllers.core import State
from reports.verify.micro_cap import wild_signals
from reports.verify.micro_cases import MAX_SEED
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space, lanes_of

LAST_SWITCH = 24
WATCHED = ("cold", "alternating", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypass:
    """A gated law gives exactly ``x_user`` while ``enabled`` is 0, from that very step on.

    Value: how many steps broke the rule, a moved state counting as one step. The gate opens again
    after ``off_for`` steps, and the law must then find its state as it left it.
    """

    name: str = "micro.bypass"
    statement: str = "gated laws: enabled = 0 gives exactly the user's T at once; the state holds"
    unit: str = "broken steps"
    steps: int = 64

    def unfit(self, law: Any) -> str:
        """Return that ``law`` has no gate, or an empty string."""
        return "" if isinstance(law, Gated) else "not gated: it has no bypass"

    def space(self, law: Any) -> Space:
        """Return the user's temperature, the signals, and when the gate closes and opens."""
        return {
            "t_user": Number(0.05, 3.0, log=True),
            "pattern": Choice(WATCHED),
            "seed": Number(0, MAX_SEED, integer=True),
            "off_at": Number(0, LAST_SWITCH, integer=True),
            "off_for": Number(1, LAST_SWITCH, integer=True),
        }

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the number of broken steps, ``[B]``."""
        off, commands, moved = self._run(law, cases)
        wrong = off & (commands != np.log(np.asarray(cases["t_user"], np.float64)))
        value = (wrong | moved).sum(axis=0).astype(np.float64)
        return Measured(value, np.zeros_like(value))

    def _run(self, law: Any, cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where lanes were off, the commands, and where a held state moved, ``[t, B]``."""
        off_at, off_for = (np.asarray(cases[name]) for name in ("off_at", "off_for"))
        state, rows = None, []
        for t, signal in enumerate(wild_signals(cases, self.steps)):
            off = (t >= off_at) & (t < off_at + off_for)
            signal = signal._replace(enabled=np.where(off, 0.0, 1.0))
            state = law.init(signal) if state is None else state
            before = _leaves(state.law)
            state, command = law.update(state, signal)
            moved = _differs(before, _leaves(state.law), len(off))
            rows.append((off, np.array(command, np.float64), off & moved))
        off, commands, moved = (np.stack(column) for column in zip(*rows, strict=True))
        return off, commands, moved

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the steps around the switch."""
        off, commands, moved = (row[:, 0] for row in self._run(law, lanes_of(case)))
        lines = [
            f"the user's T is {case['t_user']:.4f}",
            f"{'step':>5} {'gate':>5} {'T':>9}  state",
        ]
        first, last = case["off_at"], case["off_at"] + case["off_for"]
        for t in sorted({*range(first - 2, first + 3), *range(last - 2, last + 3)}):
            if 0 <= t < self.steps:
                gate, held = ("off" if off[t] else "on"), ("moved while off" if moved[t] else "")
                lines.append(f"{t:>5} {gate:>5} {np.exp(commands[t]):>9.4f}  {held}")
        broken = int(self.measure(law, lanes_of(case)).value[0])
        what = "the gate leaks" if broken else "the gate holds"
        return [*lines, f"{broken} of {case['off_for']} steps with the gate off broke it: {what}"]

    def certificate(self, law: Any) -> Certificate | None:
        """Return that a closed gate passes ``x_user``, for our gate."""
        return certificates.bypass(law)


def _leaves(state: State) -> list[np.ndarray]:
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in _leaves(part)]
    return [np.array(state)]


def _differs(before: list[np.ndarray], after: list[np.ndarray], lanes: int) -> np.ndarray:
    """Tell in which lanes any leaf changed, bit by bit in effect, bool ``[B]``."""
    changed = np.zeros(lanes, bool)
    for old, new in zip(before, after, strict=True):
        same = (old == new) | ((old != old) & (new != new))  # NaN is held as NaN
        changed |= ~same.reshape(lanes, -1).all(axis=1)
    return changed
