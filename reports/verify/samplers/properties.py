"""The rules of the samplers' contract as properties that look for their own cases.

First the trials that are always run (every kind of row at once, rows of one and two tokens, a whole
vocabulary, a long run), then fresh seeds; the first that breaks the rule is made small.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.core import TokenSignal
from reports.verify.contract.signals import has_torch
from reports.verify.contract.trial import Broken
from reports.verify.error_line import error_line
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space, case_of, n_lanes
from reports.verify.samplers import backends, behaviour, effects
from reports.verify.samplers.scene import KINDS, ROWS, SamplerTrial, scene_of, spoiled

Rule = Callable[[Any, SamplerTrial], None]
Applies = Callable[[Any], str]
MAX_SEED = 9_999
SPOILS = ("nan", "inf", "-inf")
VOCABULARY = 50_257  # tokens: GPT-2's
SHOWN = 8  # logits of a row in a story
FIRST = (
    SamplerTrial(),
    SamplerTrial(n=1, steps=3),
    SamplerTrial(n=2, steps=3),
    SamplerTrial(rows="plain", lanes=2, steps=2, n=VOCABULARY),
)
LONG = SamplerTrial(lanes=8, n=12, steps=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerProperty:
    """One rule: the value is the number of lanes that break it, and may be 0 only."""

    name: str
    statement: str
    unit: str = "broken lanes"
    rule: Rule
    first: tuple[SamplerTrial, ...] = FIRST  # always run
    fresh: int = 24  # more trials, of fresh seeds, at most
    needs_torch: bool = False
    unfit_for: Applies | None = None

    def unfit(self, law: Any) -> str:
        """Return why the rule cannot be applied to sampler ``law``, or an empty string."""
        if self.needs_torch and not has_torch():
            return "torch is not installed"
        if self.rule is behaviour.is_callable:
            return ""
        if CALLABLE.breach(law, SamplerTrial(rows="plain", lanes=2, steps=2, n=8)) is not None:
            return f"it does not run: see {CALLABLE.name}"
        if self.unfit_for is None:
            return ""
        with np.errstate(all="ignore"):
            return self.unfit_for(_pristine(law))

    def space(self, law: Any) -> Space:
        """Return what may be chosen: seed, kind of rows, and sizes; a field to spoil."""
        size = {
            "seed": Number(0, MAX_SEED, integer=True),
            "rows": Choice(ROWS),
            "lanes": Number(1, max(t.lanes for t in self.first), integer=True),
            "steps": Number(1, max(t.steps for t in self.first), integer=True),
            "n": Number(1, max(t.n for t in self.first), integer=True),
        }
        if self.rule is not effects.survives_nonfinite:
            return size
        return size | {"field": Choice(TokenSignal._fields), "value": Choice(SPOILS)}

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Run every case on its own; an exception inside the sampler is one broken lane."""
        trials = [trial_of(case_of(cases, i)) for i in range(n_lanes(cases))]
        found = [self.breach(law, trial) for trial in trials]
        value = np.array([0.0 if broken is None else broken.count for broken in found])
        return Measured(value, np.zeros_like(value))

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the smallest breaking case found, or the first case, and how many were tried."""
        tried = 0
        for trial in self._trials(rng, budget):
            tried += 1
            if self.breach(law, trial) is not None:
                small, more = self._shrunk(law, trial)
                return case_of_trial(small), tried + more
        return case_of_trial(self.first[0]), tried

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the trial, the broken rule in words, and the row and signal of its lane."""
        trial = trial_of(case)
        lines = [
            f"{self.statement}.",
            f"{trial.steps} batches of {trial.lanes} {trial.rows} rows of {trial.n}",
        ]
        if trial.field:
            lines.append(f"{trial.field} = {trial.value} at steps 0 and {trial.steps // 2}")
        broken = self.breach(law, trial)
        if broken is None:
            return [*lines, "the rule holds"]
        lines.append(f"BROKEN: {broken.message}")
        if broken.lane is None or broken.step is None:
            return lines
        lines.append(f"{broken.count} lane(s); first lane {broken.lane} at step {broken.step}:")
        return lines + _lane_lines(trial, broken.lane, broken.step)

    def certificate(self, law: Any) -> Certificate | None:
        """Return None: the contract is tested, not proved."""
        return None

    def breach(self, law: Any, trial: SamplerTrial) -> Broken | None:
        """Run one trial on a copy of the sampler; return how it broke the rule, if it did.

        A copy, so that what a sampler remembers of one trial cannot hide a defect in the next.
        """
        law = _pristine(law)
        try:
            # A verdict must not depend on whether the caller turns warnings into errors.
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.rule(law, trial)
        except Broken as broken:
            return broken
        except Exception as error:
            return Broken(error_line(error)[:240])
        return None

    def _trials(self, rng: np.random.Generator, budget: int) -> Iterator[SamplerTrial]:
        yield from self.first
        for i in range(min(budget, self.fresh)):
            seed = int(rng.integers(MAX_SEED))
            yield dataclasses.replace(self.first[0], seed=seed, n=int(rng.integers(1, 65)))
            if i == 0:  # lanes of one kind meet no others
                yield from (dataclasses.replace(self.first[0], rows=kind) for kind in KINDS)

    def _shrunk(self, law: Any, trial: SamplerTrial) -> tuple[SamplerTrial, int]:
        """Return a smaller trial that breaks the rule too, made small one size after another."""
        tried, changed = 0, True
        while changed:
            changed = False
            for name, value in _smaller(trial):
                tried += 1
                small = dataclasses.replace(trial, **{name: value})
                if self.breach(law, small) is not None:
                    trial, changed = small, True
                    break
        return trial, tried


def trial_of(case: Case) -> SamplerTrial:
    """Return a case as a trial."""
    whole = {name: int(case[name]) for name in ("seed", "lanes", "steps", "n")}
    words = {name: str(case[name]) for name in ("rows", "field", "value") if name in case}
    return dataclasses.replace(SamplerTrial(), **whole, **words)


def case_of_trial(trial: SamplerTrial) -> Case:
    """Return a trial as a case of JSON scalars."""
    case = dataclasses.asdict(trial)
    return case if trial.field else {k: v for k, v in case.items() if k not in ("field", "value")}


def _lane_lines(trial: SamplerTrial, lane: int, step: int) -> list[str]:
    scene = spoiled(scene_of(trial), trial) if trial.field else scene_of(trial)
    row, signal = scene.logits[step][lane], scene.signals[step]
    logits = " ".join(f"{z:.6g}" for z in row[:SHOWN])
    more = f" ... ({np.isfinite(row).sum()} of {len(row)} finite)" if len(row) > SHOWN else ""
    fields = [f"{name}={value[lane]:.6g}" for name, value in signal._asdict().items()]
    pairs = [f"  {' '.join(fields[i : i + 5])}" for i in range(0, len(fields), 5)]
    return [f"  logits {logits}{more}", *pairs]


def _smaller(trial: SamplerTrial) -> Iterator[tuple[str, Any]]:
    """List what may be made smaller, the shortest rows first; few, for whole trials are run."""
    for name in ("n", "steps", "lanes"):
        size = getattr(trial, name)
        yield from ((name, less) for less in (1, 2, 3, 8, 16, 64, 1024) if less < size)
    if trial.rows == "mixed":
        yield from (("rows", kind) for kind in KINDS)


def _pristine(law: Any) -> Any:
    try:
        return copy.deepcopy(law)
    except Exception:  # what cannot be copied is run as it is
        return law


def _rule(name: str, rule: Rule, **shape: Any) -> SamplerProperty:
    statement = " ".join((rule.__doc__ or "").split()).removesuffix(".").replace("``", "")
    return SamplerProperty(name=f"sampler.{name}", statement=statement, rule=rule, **shape)


def _spoilt() -> tuple[SamplerTrial, ...]:
    pairs = itertools.product(TokenSignal._fields, SPOILS)
    return tuple(SamplerTrial(lanes=8, steps=4, n=16, field=f, value=v) for f, v in pairs)


_ODD = SamplerTrial(lanes=13, steps=4, n=17)  # no axis is as long as another
CALLABLE = _rule("callable", behaviour.is_callable)
PROPERTIES: tuple[SamplerProperty, ...] = (
    CALLABLE,
    _rule("types", behaviour.has_stable_types, first=(_ODD,), fresh=1),
    _rule("pure", behaviour.is_pure),
    _rule("lane_wise", behaviour.is_lane_wise),
    _rule("accepts", behaviour.moves_on_acceptance),
    _rule("resumable", behaviour.is_resumable),
    _rule("mask", effects.keeps_the_mask, first=(*FIRST, LONG)),
    _rule("nonfinite", effects.survives_nonfinite, first=_spoilt(), fresh=0),
    _rule("wild", effects.survives_wild_signals, first=(*FIRST, LONG)),
    _rule("forced", effects.survives_forced_tokens, first=(*FIRST, LONG)),
    _rule("keeps_top", effects.keeps_the_best, unfit_for=effects.unfit_for_best),
    _rule("cap", effects.keeps_the_cap, first=(*FIRST, LONG), unfit_for=effects.unfit_for_cap),
    _rule("bypass", effects.leaves_lanes_alone, unfit_for=effects.unfit_for_bypass),
    _rule("backends", backends.libraries_agree, needs_torch=True, fresh=2),
    _rule("branch_free", backends.is_branch_free, first=(_ODD,), fresh=0, needs_torch=True),
)
