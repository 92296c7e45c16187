"""One setting decoding its way along a text, and what it gave on each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from backend.sensors import entropy_varentropy, kl_divergence
from controllers.core import TokenSignal
from controllers.serving.lanes import LaneBank
from reports.evaluation.settings import Setting
from reports.evaluation.witness import PageWitness


@dataclass(slots=True)
class Scored:
    """One setting along one text; lists have one entry per scored token."""

    kl_nats: list[float] = field(default_factory=list)  # KL(dense || pruned)
    agrees: list[bool] = field(default_factory=list)  # whether the likeliest tokens are one
    nll_nats: list[float] = field(default_factory=list)  # of the forced token
    dense_nll_nats: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)  # asked for
    dropped: list[float] = field(default_factory=list)  # true; pruned steps that were looked at
    asked_there: list[float] = field(default_factory=list)  # 1 - coverage at those steps
    units_read: int = 0  # pages, summed over steps, layers and KV heads
    units_dense: int = 0
    units_scored: int = 0


@dataclass(slots=True)
class Lane:
    """A setting at work; ``setting`` and ``law`` are None for the dense lane."""

    setting: Setting | None
    number: int  # its pages in the store, and its request id
    law: LaneBank | None
    found: Scored = field(default_factory=Scored)
    command: float = 1.0

    def coverage(self, context: int, generated: int) -> float:
        """Return the coverage of the next row, by the rules of ``CoverageControl.row``."""
        setting = self.setting
        if setting is None or context < setting.min_context:
            return 1.0
        every = setting.probe_every
        return 1.0 if every > 0 and generated % every == 0 else self.command


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass gave its lanes: logits ``[lanes, n]`` and what attention read."""

    logits: Tensor
    coverage: tuple[float, ...]
    watch: PageWitness


def command(lanes: Sequence[Lane], logits: Tensor, generated: int) -> None:
    """Let each lane's law see its own logits ``[lanes, n]``; its command holds one step later."""
    h, v = (part.numpy() for part in entropy_varentropy(logits, torch.zeros(len(logits))))
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    for i, lane in enumerate(lanes):
        if lane.law is None:
            continue
        now = {"h_cal": h[i : i + 1], "v_cal": v[i : i + 1], "enabled": one}
        now |= {"h_in": now["h_cal"], "v_in": now["v_cal"]}
        now["position"] = np.full(1, generated, np.float32)
        others = {name: zero for name in TokenSignal._fields if name not in now}
        lane.command = float(lane.law.update([0], TokenSignal(**now, **others))[0])


def note(lanes: Sequence[Lane], step: Step, dense: Tensor, following: int) -> None:
    """Score a step's prediction of the token ``following`` against dense logits ``[n]``."""
    logits, watch = step.logits, step.watch
    kl = kl_divergence(dense.expand_as(logits), logits).tolist()
    agrees = (logits.argmax(-1) == dense.argmax()).tolist()
    nll = (logits.logsumexp(-1) - logits[:, following]).tolist()
    dense_nll = float(dense.logsumexp(-1) - dense[following])
    dropped = watch.dropped()
    for i, lane in enumerate(lanes):
        found, coverage = lane.found, step.coverage[i]
        found.kl_nats.append(kl[i])
        found.agrees.append(agrees[i])
        found.nll_nats.append(nll[i])
        found.dense_nll_nats.append(dense_nll)
        found.coverage.append(coverage)
        found.units_read += int(watch.read[i])
        found.units_dense += int(watch.dense[i])
        found.units_scored += int(watch.scored[i])
        if dropped is not None and coverage < 1.0:
            found.dropped.append(dropped[i])
            found.asked_there.append(1.0 - coverage)
