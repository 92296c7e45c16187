"""Rules on the values of commands: in range for finite signals, finite for any."""

from __future__ import annotations

import numpy as np

from controllers.core import replay
from reports.verify.contract.signals import extreme
from reports.verify.contract.subject import Subject
from reports.verify.contract.trial import Trial, ensure_lanes


def is_bounded(subject: Subject, trial: Trial) -> None:
    """Every finite signal, however wild, gives a command in the promised range."""
    law, signals = subject.law, subject.signals(trial.steps, trial.lanes, trial.seed)
    wild = [extreme(s, trial.seed + i) if i % 2 else s for i, s in enumerate(signals)]
    state = law.init(wild[0])
    for step, signal in enumerate(wild):
        state, command = law.update(state, signal)
        low, high = subject.bounds(signal)
        finite = np.isfinite(command)
        ensure_lanes(finite, "a finite signal gave a non-finite command", step)
        ensure_lanes(command >= low, f"below its range by {np.max(low - command):.4g}", step)
        ensure_lanes(command <= high, f"above its range by {np.max(command - high):.4g}", step)


def survives_nonfinite(subject: Subject, trial: Trial) -> None:
    """NaN or infinity in any one field never reaches a command, now or later."""
    signals = subject.signals(trial.steps, trial.lanes, trial.seed)
    poisoned = np.full(trial.lanes, float(trial.value), dtype=np.float32)
    for step in {0, trial.steps // 2}:
        signals[step] = signals[step]._replace(**{trial.field: poisoned})
    commands = replay(subject.law, signals)
    ensure_lanes(np.isfinite(commands), f"{trial.field} = {trial.value} reached a command")
