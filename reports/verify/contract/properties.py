"""The rules of the contract as properties, each with a few trials of its own choosing.

A rule is cheap to break and slow to run, so the properties look for their own cases: a first trial
of full size, then others from fresh seeds, then the smallest trial that still breaks.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.core import LoadSignal
from controllers.presets import Preset
from reports.verify.contract import backends, behaviour, memory, ranges
from reports.verify.contract.signals import ORACLE_FIELD, has_torch
from reports.verify.contract.subject import ROLES, Role, Subject, role_of, subject_of
from reports.verify.contract.trial import Broken, Trial
from reports.verify.error_line import error_line
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space, case_of, n_lanes

Rule = Callable[[Subject, Trial], None]
MAX_SEED = 9_999
SPOILS = ("nan", "inf", "-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractProperty:
    """One rule as a property: the value is the number of lanes that break it, and may be 0 only.

    ``role`` empty: inferred from the law.
    """

    unit: ClassVar[str] = "broken lanes"

    name: str
    statement: str
    rule: Rule
    lanes: int = 16  # of the first trial, and the most
    steps: int = 40
    needs_torch: bool = False
    most: int = 8  # trials; rules hold for every signal or break soon, more seeds find little
    role: Role | None = None

    def unfit(self, law: Any) -> str:
        """Return why the rule cannot be applied to ``law``, or an empty string."""
        if isinstance(law, Preset):
            return "a preset: its laws are checked one by one"
        if self.needs_torch and not has_torch():
            return "torch is not installed"
        if self.rule is behaviour.is_callable:
            return ""
        callable_ = dataclasses.replace(CALLABLE, role=self.role)
        if callable_.breach(law, Trial(lanes=2, steps=2)) is not None:
            return f"update does not run: see {CALLABLE.name}"
        return self._unfit_for_oracle(law) if self.rule is behaviour.ignores_the_oracle else ""

    def _unfit_for_oracle(self, law: Any) -> str:
        if self.role_for(law) != "priority":
            return "only priority laws read load signals"
        if ORACLE_FIELD not in LoadSignal._fields:
            return f"LoadSignal has no field {ORACLE_FIELD}"
        return "an oracle by its own declaration" if getattr(law, "oracle", False) else ""

    def space(self, law: Any) -> Space:
        """Return what may be chosen: the seed of the signals, their lanes and steps."""
        size = {
            "seed": Number(0, MAX_SEED, integer=True),
            "lanes": Number(1, self.lanes, integer=True),
            "steps": Number(2, self.steps, integer=True),
        }
        if self.rule is not ranges.survives_nonfinite:
            return size
        return size | {"field": Choice(self._fields(law)), "value": Choice(SPOILS)}

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Run every case on its own; an exception inside the law counts as one broken lane."""
        found = [self.breach(law, self.trial_of(case_of(cases, i))) for i in range(n_lanes(cases))]
        value = np.array([0.0 if broken is None else broken.count for broken in found])
        return Measured(value, np.zeros_like(value))

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        """Return the smallest breaking case found, or the first case, and the number of cases."""
        tried = 0
        first: Trial | None = None
        for trial in self._trials(law, rng, budget):
            tried += 1
            first = first or trial
            if self.breach(law, trial) is not None:
                small, more = self._shrunk(law, trial)
                return self.case_of(small), tried + more
        assert first is not None
        return self.case_of(first), tried

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the trial, the broken rule in words, and what the offending lane was given."""
        trial = self.trial_of(case)
        lines = [
            f"{self.statement}.",
            f"{trial.steps} signals of {trial.lanes} lanes, seed {trial.seed}",
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
        return lines + self._signal_lines(law, trial, broken.lane, broken.step)

    def certificate(self, law: Any) -> Certificate | None:
        """Return None: the contract is tested, not proved."""
        return None

    def breach(self, law: Any, trial: Trial) -> Broken | None:
        """Run one trial of a law; return how it broke the rule, if it did."""
        try:
            subject = subject_of(law, self.role_for(law))
        except Exception as error:
            return _raised(error)
        return self.breach_of(subject, trial)

    def breach_of(self, subject: Subject, trial: Trial) -> Broken | None:
        """Run one trial of a subject, whose bounds may be tighter than its role's."""
        try:
            # A verdict must not depend on whether the caller turns warnings into errors.
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.rule(subject, trial)
        except Broken as broken:
            return broken
        except Exception as error:
            return _raised(error)
        return None

    def trials(self, fields: tuple[str, ...]) -> list[Trial]:
        """Return the trials that are always run: one, or one per field and value to spoil."""
        whole = Trial(lanes=self.lanes, steps=self.steps)
        if self.rule is not ranges.survives_nonfinite:
            return [whole]
        pairs = itertools.product(fields, SPOILS)
        return [dataclasses.replace(whole, field=field, value=value) for field, value in pairs]

    def trials_for(self, law: Any) -> list[Trial]:
        """Return the trials that are always run of ``law``."""
        return self.trials(self._fields(law))

    def trial_of(self, case: Case) -> Trial:
        """Return a case as a trial."""
        seed, lanes, steps = (int(case[name]) for name in ("seed", "lanes", "steps"))
        spoiled = {name: str(case[name]) for name in ("field", "value") if name in case}
        return dataclasses.replace(Trial(seed=seed, lanes=lanes, steps=steps), **spoiled)

    def case_of(self, trial: Trial) -> Case:
        """Return a trial as a case of JSON scalars."""
        case: Case = {"seed": trial.seed, "lanes": trial.lanes, "steps": trial.steps}
        return case | ({"field": trial.field, "value": trial.value} if trial.field else {})

    def role_for(self, law: Any) -> Role:
        """Return the role given, or the one the law's signals tell; raises what the law raised."""
        return self.role or role_of(law)

    def _trials(self, law: Any, rng: np.random.Generator, budget: int) -> Iterator[Trial]:
        yield from (always := self.trials_for(law))
        for _ in range(min(budget, self.most) - len(always)):
            yield Trial(seed=int(rng.integers(MAX_SEED)), lanes=self.lanes, steps=self.steps)

    def _shrunk(self, law: Any, trial: Trial) -> tuple[Trial, int]:
        tried = 0
        for lanes, steps in itertools.product(_sizes(1, trial.lanes), _sizes(2, trial.steps)):
            small = dataclasses.replace(trial, lanes=lanes, steps=steps)
            tried += 1
            if self.breach(law, small) is not None:
                return small, tried
        return trial, tried

    def _fields(self, law: Any) -> tuple[str, ...]:
        try:
            subject = subject_of(law, self.role_for(law))
        except Exception:  # contract.callable reports it
            return ()
        return subject.signals(1, 1)[0]._fields

    def _signal_lines(self, law: Any, trial: Trial, lane: int, step: int) -> list[str]:
        signals = subject_of(law, self.role_for(law)).signals(trial.steps, trial.lanes, trial.seed)
        signal = signals[step]
        values = [f"{name}={value[lane]:.6g}" for name, value in signal._asdict().items()]
        return [f"  {' '.join(values[i : i + 5])}" for i in range(0, len(values), 5)]


def properties_of(role: Role) -> tuple[ContractProperty, ...]:
    """Return the contract for laws known to have this role, so that none need be inferred."""
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}; got {role!r}")
    return tuple(dataclasses.replace(item, role=role) for item in PROPERTIES)


def _sizes(low: int, high: int) -> list[int]:
    """Return a few sizes from ``low`` to ``high``, doubling."""
    sizes = [low]
    while sizes[-1] < high:
        sizes.append(min(high, 2 * sizes[-1]))
    return sizes


def _raised(error: Exception) -> Broken:
    return Broken(error_line(error)[:240])


def _rule(name: str, rule: Rule, **shape: Any) -> ContractProperty:
    statement = " ".join((rule.__doc__ or "").split()).removesuffix(".").replace("``", "")
    return ContractProperty(name=f"contract.{name}", statement=statement, rule=rule, **shape)


CALLABLE = _rule("callable", behaviour.is_callable, lanes=4, steps=4)
PROPERTIES: tuple[ContractProperty, ...] = (
    CALLABLE,
    _rule("pure", behaviour.is_pure, steps=12),
    _rule("lane_wise", behaviour.is_lane_wise, lanes=130),  # past any block of 16, 64 or 128
    _rule("types", memory.has_stable_types, lanes=13, steps=4),  # no other axis is that long
    _rule("branch_free", backends.is_branch_free, steps=3, needs_torch=True, most=1),
    _rule("compiles", backends.compiles, lanes=8, steps=5, needs_torch=True, most=1),
    _rule("bounded", ranges.is_bounded, steps=256),
    _rule("nonfinite", ranges.survives_nonfinite, lanes=4, steps=6),
    _rule("resumable", behaviour.is_resumable),
    _rule("aliases", memory.has_no_aliases, steps=5),
    _rule("bitwise", backends.agrees_bitwise, lanes=64, steps=200, needs_torch=True, most=3),
    _rule("oracle", behaviour.ignores_the_oracle),
)
