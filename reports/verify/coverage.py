"""Coverage laws: monotone in entropy, careful when unsure, calm under chatter, dense when off.

The searched quantities are commands, attention mass to keep; every lane is a law of its own fed
with one hostile entropy sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.certificates.coverage import (
    coverage_chatter,
    coverage_direction,
    coverage_masked,
    coverage_monotone,
)
from controllers.core import Law, State
from controllers.coverage import DENSE, HIGHEST_SPARSE
from reports.verify.coverage_runs import (
    H_MAX,
    PATTERNS,
    Column,
    changes,
    chatter_steps,
    gain_of,
    held,
    hold_steps,
    mask,
    need,
    pattern,
    pauses,
    rest,
    run,
    token_signal,
    with_gain,
)
from reports.verify.property import (
    Case,
    Cases,
    Measured,
    Number,
    Property,
    Space,
    lanes_of,
    n_lanes,
)

ROUNDING = 1e-6  # what float32 commands may miss by
MASK_STEPS = 64
EIGHTH = 0.125  # nats; margins come in eighths so that lanes share laws


@dataclass(frozen=True, slots=True)
class Monotone:
    """At rest a higher entropy gets no less coverage."""

    name: str = "coverage.monotone"
    statement: str = "at constant H, once settled, a higher H never gets less coverage"
    unit: str = "coverage lost"

    def unfit(self, law: Law) -> str:
        """Return an empty string: every coverage law has a resting coverage."""
        return ""

    def space(self, law: Law) -> Space:
        """Return an entropy, how much higher the other is, and the entropy both come from."""
        return {"h": Number(0.0, H_MAX), "higher": Number(0.0, 4.0), "before": Number(0.0, H_MAX)}

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return resting coverage at ``h`` less that at ``h + higher``."""
        low, high = self._resting(law, cases)
        return Measured(low - high, np.full(len(low), ROUNDING))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return both resting points."""
        low, high = self._resting(law, lanes_of(case))
        return [
            f"after H = {case['before']:.3g} nats for {hold_steps(law)} steps:",
            f"  H = {case['h']:.4g} nats rests at coverage {low[0]:.4f}",
            f"  H = {case['h'] + case['higher']:.4g} nats rests at coverage {high[0]:.4f}",
            "the more uncertain request reads less"
            if low[0] > high[0] + ROUNDING
            else "the more uncertain request reads no less",
        ]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return coverage_monotone(law)

    def _resting(self, law: Law, cases: Cases) -> tuple[Column, Column]:
        low = rest(law, cases["h"], cases["before"])
        return low, rest(law, cases["h"] + cases["higher"], cases["before"])


@dataclass(frozen=True, slots=True)
class Direction:
    """A larger error margin of the entropy estimate never lowers coverage."""

    name: str = "coverage.direction"
    statement: str = "a larger margin of the entropy estimate never lowers coverage, at any H"
    unit: str = "coverage lost"

    def unfit(self, law: Law) -> str:
        """Say no to laws without a margin."""
        return "" if gain_of(law, "margin") is not None else "the law has no margin"

    def space(self, law: Law) -> Space:
        """Return an entropy, a margin and how much larger the other is, in eighths of a nat."""
        return {
            "h": Number(0.0, H_MAX),
            "margin_eighths": Number(0, 8, integer=True),
            "more_eighths": Number(1, 8, integer=True),
        }

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return the resting coverage under the small margin less that under the larger."""
        small, large = self._resting(law, cases)
        return Measured(small - large, np.full(len(small), ROUNDING))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the coverage under either margin."""
        small, large = self._resting(law, lanes_of(case))
        margin = EIGHTH * case["margin_eighths"]
        more = margin + EIGHTH * case["more_eighths"]
        verdict = "prunes more" if small[0] > large[0] + ROUNDING else "does not prune more"
        return [
            f"measured entropy H = {case['h']:.4g} nats, held until coverage rests",
            f"  known to within {margin:g} nats: coverage {small[0]:.4f}",
            f"  known to within {more:g} nats: coverage {large[0]:.4f}",
            f"the less sure of its own measurement, the law {verdict}",
        ]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return coverage_direction(law)

    def _resting(self, law: Law, cases: Cases) -> tuple[Column, Column]:
        margin = cases["margin_eighths"].astype(np.int64)
        more = margin + cases["more_eighths"].astype(np.int64)
        return self._by_margin(law, cases["h"], margin), self._by_margin(law, cases["h"], more)

    @staticmethod
    def _by_margin(law: Law, h: Column, eighths: Column) -> Column:
        coverage = np.empty(len(h))
        for count in np.unique(eighths):
            lanes = eighths == count
            changed = with_gain(law, "margin", EIGHTH * float(count))
            coverage[lanes] = rest(changed, h[lanes], h[lanes])
        return coverage


@dataclass(frozen=True, slots=True)
class Chatter:
    """Changes come no closer than dwell steps and are no larger than rate.

    Between .99 and 1 there is no command, so that one jump is not charged to the rate. Lanes are
    switched off and on: steps off count as time, what they read does not count as a change, and a
    lane goes on from the coverage that it had when it was last on.
    """

    name: str = "coverage.chatter"
    statement: str = (
        "whatever H and the mask do, coverage changes at most once per dwell and by at most rate"
    )
    unit: str = "times the law's own limit"

    def unfit(self, law: Law) -> str:
        """Say no to laws that promise no limit."""
        if gain_of(law, "dwell") is None or gain_of(law, "rate") is None:
            return "the law has no dwell and rate, so it promises no limit on chatter"
        return ""

    def space(self, law: Law) -> Space:
        """Return a pattern between two entropies and a mask; ``on_for`` 0 is never off."""
        return {
            "h_a": Number(0.0, H_MAX),
            "h_b": Number(0.0, H_MAX),
            "pattern": PATTERNS,
            "period": Number(1, 24, integer=True),
            "seed": Number(0, 9999, integer=True),
            "on_for": Number(0, 16, integer=True),
            "off_for": Number(1, 16, integer=True),
        }

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return the worse of dwell over the shortest pause and largest change over rate."""
        commands = self._run(law, cases)[2]
        pause, change = pauses(commands), changes(commands)
        ratio = np.maximum(need(law, "dwell") / pause, change / need(law, "rate"))
        return Measured(ratio, np.full(len(ratio), 1.0 + 1e-4))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the first changes of the coverage."""
        entropies, masks, commands = self._run(law, lanes_of(case))
        commands = commands[:, 0]
        lines = [f"dwell {need(law, 'dwell'):g} steps, rate {need(law, 'rate'):g}"]
        last = 0
        for t in np.flatnonzero(np.diff(commands)) + 1:
            back = "" if masks[t - 1][0] else ", just switched on"
            lines.append(
                f"  step {t:3d} (+{t - last}): H {entropies[t][0]:6.3f}, "
                f"coverage {commands[t - 1]:.4f} -> {commands[t]:.4f}{back}"
            )
            last = int(t)
        return lines[:20] if len(lines) > 1 else [*lines, "  coverage never changed"]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return coverage_chatter(law)

    @staticmethod
    def _run(law: Law, cases: Cases) -> tuple[list[Column], list[Column], np.ndarray]:
        """Return entropies and masks step by step, and the commands in force, ``[T, B]``."""
        steps = range(chatter_steps(law))
        entropies, masks = ([f(cases, t) for t in steps] for f in (pattern, mask))
        return entropies, masks, held(run(law, entropies, masks), masks)


@dataclass(frozen=True, slots=True)
class Masked:
    """A lane that is off reads everything; a command is one that recordings can answer."""

    name: str = "coverage.masked"
    statement: str = "enabled = 0 gets exactly 1; other commands lie in (0, .99] or are exactly 1"
    unit: str = "bad commands"

    def unfit(self, law: Law) -> str:
        """Return an empty string: this binds every coverage law."""
        return ""

    def space(self, law: Law) -> Space:
        """Return hostile entropies and a mask that switches every few steps."""
        return {
            "h_a": Number(0.0, H_MAX),
            "h_b": Number(0.0, H_MAX),
            "pattern": PATTERNS,
            "period": Number(1, 24, integer=True),
            "seed": Number(0, 9999, integer=True),
            "off_every": Number(1, 16, integer=True),
            "broken_every": Number(1, 16, integer=True),
        }

    def measure(self, law: Law, cases: Cases) -> Measured:
        """Return how many of the commands break the rule; every so often H is not a number."""
        bad = np.stack([~ok for _, _, _, ok in self._steps(law, cases)]).sum(axis=0)
        return Measured(bad.astype(np.float64), np.zeros(len(bad)))

    def story(self, law: Law, case: Case) -> list[str]:
        """Return the first bad commands."""
        lines = ["step  enabled      H  coverage"]
        for t, (h, on, command, ok) in enumerate(self._steps(law, lanes_of(case))):
            if not ok[0]:
                lines.append(f"{t:4d}  {on[0]:7.0f} {h[0]:6.3f}  {command[0]:.6f}  not allowed")
        return lines[:20] if len(lines) > 1 else ["every command is allowed"]

    def certificate(self, law: Law) -> Certificate | None:
        """Return what theory says of this."""
        return coverage_masked(law)

    @staticmethod
    def _steps(law: Law, cases: Cases) -> list[tuple[Column, Column, Column, Column]]:
        """Return entropy, mask, command and whether it is allowed, step by step."""
        state: State = None
        steps = []
        for t in range(MASK_STEPS):
            h = np.where((t + 1) % cases["broken_every"].astype(int) == 0, np.nan, 1.0)
            h = h * pattern(cases, t)
            on = ((t // cases["off_every"].astype(int)) % 2 == 0).astype(np.float32)
            signal = token_signal(n_lanes(cases), h_cal=h, h_in=h, enabled=on, position=t)
            with np.errstate(invalid="ignore"):
                state = law.init(signal) if t == 0 else state
                state, command = law.update(state, signal)
            sparse = (command > 0.0) & (command <= np.float32(HIGHEST_SPARSE))
            steps.append((h, on, command, (command == DENSE) | (sparse & (on > 0.0))))
        return steps


PROPERTIES: tuple[Property, ...] = (Monotone(), Direction(), Chatter(), Masked())
