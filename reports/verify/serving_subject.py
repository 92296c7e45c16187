"""What the serving properties examine, and the small server they put it in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controllers.core import require
from controllers.presets import Preset, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.pages import PagePool
from controllers.serving.scheduler import Scheduler
from reports.verify.fake_executor import PAGE_TOKENS
from reports.verify.property import Number

MAX_CONTEXT = 40  # tokens: prompt and output of the longest request a script may submit
PROBE_EVERY = 3  # tokens: short requests must reach the dense probes too


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSubject:
    """A preset, and the scheduler that serves it: ours, or the user's own subclass.

    ``pool_type`` is the page pool to examine; None takes the one that the scheduler makes.
    """

    preset: Preset
    scheduler_type: type[Scheduler] = Scheduler
    pool_type: type[PagePool] | None = None

    @property
    def name(self) -> str:
        """What a report calls it."""
        if self.pool_type is not None:
            return self.pool_type.__name__
        return (
            self.preset.name if self.scheduler_type is Scheduler else self.scheduler_type.__name__
        )


def serving_subject(target: object) -> ServingSubject | None:
    """Return ``target`` (preset, scheduler class, pool class or subject) as a subject, or None.

    A scheduler or a pool alone is examined under the preset ``full``.
    """
    if isinstance(target, ServingSubject):
        return target
    if isinstance(target, Preset):
        return ServingSubject(preset=target)
    if isinstance(target, type) and issubclass(target, Scheduler):
        return ServingSubject(preset=get_preset("full"), scheduler_type=target)
    if isinstance(target, type) and issubclass(target, PagePool):
        return ServingSubject(preset=get_preset("full"), pool_type=target)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The server of one case: so small that slots, pages and budget all bind."""

    max_seqs: int = 4
    n_pages: int = 12
    token_budget: int = 16  # at least max_seqs is used, as EngineLimits wants
    quantum: int = 0  # tokens; 0 is the preset's own
    stop_percent: int = 0  # chance of each token to be the last
    fail_percent: int = 0  # chance of each row to fail

    def __post_init__(self) -> None:
        for name, number in SETTING_SPACE.items():
            value = getattr(self, name)
            require(
                number.low <= value <= number.high,
                f"{name} must lie between {number.low:g} and {number.high:g}",
                **{name: value},
            )

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> Setting:
        """Return the setting of a case; what the case leaves out keeps its default."""
        return cls(**{name: int(case[name]) for name in SETTING_SPACE if name in case})

    @property
    def limits(self) -> EngineLimits:
        """The engine of this setting."""
        return EngineLimits(
            max_seqs=self.max_seqs,
            token_budget=max(self.token_budget, self.max_seqs),
            n_pages=self.n_pages,
            max_context=MAX_CONTEXT,
            page_tokens=PAGE_TOKENS,
        )

    def apply(self, preset: Preset) -> Preset:
        """Return ``preset`` with the rules for long contexts brought within reach of short ones."""
        return dataclasses.replace(
            preset,
            quantum_tokens=self.quantum or preset.quantum_tokens,
            sparse_min_context=0,
            probe_every=PROBE_EVERY if preset.probe_every else 0,
        )

    def tell(self) -> str:
        """Return the setting as one line."""
        quantum = f"quantum {self.quantum} tokens" if self.quantum else "the preset's quantum"
        chances = f"{self.stop_percent} % stops, {self.fail_percent} % failures"
        limits = self.limits
        return (
            f"{limits.max_seqs} slots, {limits.n_pages} pages of {limits.page_tokens} tokens, "
            f"budget {limits.token_budget} tokens a step, {quantum}, {chances}"
        )


SETTING_SPACE = {
    "max_seqs": Number(1, 4, integer=True),
    "n_pages": Number(10, 16, integer=True),  # the longest request needs 10
    "token_budget": Number(1, 16, integer=True),
    "quantum": Number(0, 4, integer=True),
    "stop_percent": Number(0, 30, integer=True),
    "fail_percent": Number(0, 10, integer=True),
}
