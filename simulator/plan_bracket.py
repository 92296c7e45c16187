"""A bracket on a ladder of rates: where a service level is met, where it is not, what lies between.

Rung k is ``RUNG**k`` times a first guess. A bracket keeps how far each tried rung was beyond the
level (in log, below 0 inside) and proposes the next by interpolation, or by halves where
interpolation is slow.
"""

from __future__ import annotations

import math

RUNG = 1.03  # ratio of neighbouring rates
STRIDE = 12  # rungs between first probes: a factor 1.4
LOWEST, HIGHEST = -132, 132  # rungs: a factor 50 down and up
PATIENCE = 3  # proposals by interpolation, then by halves


class Bracket:
    """The highest rung known to meet the level below every rung known to fail it."""

    def __init__(self, fails: int | None = None) -> None:
        """Begin with nothing known, or with a rung known to fail."""
        self.meets: int | None = None
        self.fails = self.known_to_fail = fails
        self._excess: dict[int, float] = {}

    @property
    def closed(self) -> bool:
        """Whether the two are neighbours."""
        return self.meets is not None and self.fails is not None and self.fails - self.meets <= 1

    def add(self, rung: int, excess: float) -> None:
        """Take in what was found at a rung; what meets above a failure does not count."""
        self._excess[rung] = excess
        failing = [known for known, beyond in self._excess.items() if beyond >= 0.0]
        self.fails = min(failing, default=self.fails)
        if self.fails is not None and self.known_to_fail is not None:
            self.fails = min(self.fails, self.known_to_fail)
        meeting = [known for known, beyond in self._excess.items() if beyond < 0.0]
        below = [known for known in meeting if self.fails is None or known < self.fails]
        self.meets = max(below, default=None)

    def outside(self) -> list[int]:
        """Return two rungs beyond what is known, on the side that is open; none at the end."""
        if self.fails is None:
            start = 0 if self.meets is None else self.meets
            return [rung for rung in (start + STRIDE, start + 2 * STRIDE) if rung <= HIGHEST]
        return [r for r in (self.fails - 2 * STRIDE, self.fails - STRIDE) if r >= LOWEST]

    def crossing(self, tried: int) -> int:
        """Return a rung within the open bracket where the level is likely met for the last time."""
        assert self.meets is not None, "interpolation needs a rung that meets"
        assert self.fails is not None, "interpolation needs a rung that fails"
        low, high = self._excess.get(self.meets, math.nan), self._excess.get(self.fails, math.nan)
        middle = (self.meets + self.fails) // 2
        if tried > PATIENCE or not (math.isfinite(low) and math.isfinite(high) and low < high):
            return max(middle, self.meets + 1) if self.fails - self.meets > 1 else self.meets
        guess = self.meets + math.floor((self.fails - self.meets) * -low / (high - low))
        return min(max(guess, self.meets + 1), self.fails - 1)
