"""Rules that need torch: no value is read, one graph, and the bits of numpy."""

from __future__ import annotations

from controllers.core import replay
from reports.verify.contract.signals import leaves, to_torch
from reports.verify.contract.subject import Subject
from reports.verify.contract.trial import Trial, ensure, ensure_same


def is_branch_free(subject: Subject, trial: Trial) -> None:
    """The law runs on torch's meta device, where no value can be read."""
    signals = subject.signals(trial.steps, trial.lanes, trial.seed)
    signals = [to_torch(s, "meta") for s in signals]
    state = subject.law.init(signals[0])
    for signal in signals:
        state, command = subject.law.update(state, signal)
        ensure(_on_meta(command), "the command left the device")
        ensure(all(_on_meta(leaf) for leaf in leaves(state)), "the state left the device")


def compiles(subject: Subject, trial: Trial) -> None:
    """``torch.compile(update, fullgraph=True)`` traces one graph that gives the same commands."""
    import torch

    torch._dynamo.reset()  # an earlier law's graphs must not use up this one's recompilations
    compiled = torch.compile(subject.law.update, fullgraph=True, backend="eager")
    signals = subject.signals(trial.steps, trial.lanes, trial.seed)
    signals = [to_torch(s) for s in signals]
    plain = replay(subject.law, signals).numpy()
    state = subject.law.init(signals[0])
    for step, signal in enumerate(signals):
        state, command = compiled(state, signal)
        ensure_same(command.numpy(), plain[step], "the compiled law gives other commands", step)


def agrees_bitwise(subject: Subject, trial: Trial) -> None:
    """numpy and torch give the same float32 bits."""
    signals = subject.signals(trial.steps, trial.lanes, trial.seed)
    ours = replay(subject.law, signals)
    theirs = replay(subject.law, [to_torch(s) for s in signals])
    ensure_same(theirs.numpy(), ours, "numpy and torch differ")


def _on_meta(x: object) -> bool:
    return str(getattr(x, "device", "")) == "meta"
