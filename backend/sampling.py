"""The sampling half of a step: measure the logits, run the law, truncate, draw.

One lane per request, from its admission to its end, so that a trajectory survives preemption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.cuts import Cuts
from backend.sampler import sample, uniforms
from backend.sensors import row_stats
from backend.stopwatch import Silent, Stopwatch
from controllers.compose import Shadow
from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.lane_table import LaneTable
from controllers.serving.request import Request
from kernels.row_stats.naive import RowStats


class Sampled(NamedTuple):
    """What one step's sampled rows gave, one lane each, ``[S]``."""

    tokens: Tensor  # int64; -1 where the logits were not healthy
    signal: TokenSignal  # what the law saw
    command: Tensor  # ln T applied
    h_applied: Tensor  # entropy there, before truncation, nats
    surprisal: Tensor  # -ln p of the token at T = 1, nats
    shadow: Tensor | None  # commands of a shadowed law

    def on_host(self) -> Sampled:
        """Return the same lanes in main memory."""
        return self if self.tokens.device.type == "cpu" else self.copied()

    def copied(self) -> Sampled:
        """Return the same lanes in main memory, brought there in two copies."""
        lanes = [*self.signal, self.command, self.h_applied, self.surprisal]
        lanes += [] if self.shadow is None else [self.shadow]
        width, rows = len(TokenSignal._fields), torch.stack([one.float() for one in lanes]).cpu()
        signal, (command, h_applied, surprisal, *shadow) = rows[:width], rows[width:]
        return Sampled(
            self.tokens.cpu(),
            TokenSignal(*signal),
            command,
            h_applied,
            surprisal,
            shadow[0] if shadow else None,
        )


class Sampling:
    """Runs a preset's temperature law and truncations on logit rows and draws their tokens."""

    def __init__(
        self,
        preset: Preset,
        *,
        t_cal: float = 1.0,
        device: torch.device | str = "cpu",
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Make the lanes' tables, empty, where the logits are; ``t_cal`` calibrates H."""
        self.device = torch.device(device)
        self.lanes = LaneTable(preset.temperature, torch.zeros(1, device=self.device))
        self.cuts = Cuts(preset.stages, self.device)
        self._law = preset.temperature
        self._x_cal = math.log(t_cal)
        self._stopwatch = stopwatch or Silent()

    def add(self, request: Request) -> None:
        """Give a request its lanes; refuse an id that has them."""
        self.lanes.add(request)
        self.cuts.add(request)

    def disable(self, request_id: int) -> None:
        """Return a request to its own temperature from the next step on."""
        self.lanes.disable(request_id)

    def release(self, request_id: int) -> None:
        """Free the lanes of a request; one that has none is left alone."""
        self.lanes.release(request_id)
        self.cuts.release(request_id)

    def step(self, requests: Sequence[Request], generated: list[int], logits: Tensor) -> Sampled:
        """Sample one token for each request from its row of ``logits [S, n]``.

        ``generated`` counts the tokens sampled for it so far. A row with NaN, +inf or nothing
        finite is measured as uniform, gives token -1 and moves no state of the others.
        """
        ids = tuple(request.request_id for request in requests)
        with self._stopwatch.part("lanes"):
            slots = self.lanes.slots(ids)
            state, last = self.lanes.read(slots)
        with self._stopwatch.part("statistics"):
            stats, logits, healthy = self._measure(logits, self._law.x_in(state))
        with self._stopwatch.part("law"):
            signal = last._replace(
                position=torch.tensor(generated, dtype=torch.float32, device=self.device),
                h_cal=stats.h[:, -2],
                v_cal=stats.v[:, -2],
                h_in=stats.h[:, -1],
                v_in=stats.v[:, -1],
            )
            state, command = self._law.update(state, signal)
        with self._stopwatch.part("draw"):
            noise = uniforms([request.seed for request in requests], generated).to(self.device)
            greedy = torch.tensor(
                [request.greedy for request in requests], dtype=torch.bool, device=self.device
            )
            row, x = self.cuts.row(ids, logits, signal, command)
            tokens, h_drawn = sample(row, x, greedy, stats.argmax, noise)
        with self._stopwatch.part("token surprisal"):
            chosen = logits.gather(1, tokens.clamp_min(0)[:, None])[:, 0]
            surprisal = stats.lse[:, 0] - chosen
            tokens = torch.where(healthy, tokens, -1)
        with self._stopwatch.part("lanes"):
            self.cuts.keep(tokens)
            self.lanes.write_state(slots, state)
            self.lanes.write_surprisal(slots, surprisal)
        with self._stopwatch.part("statistics"):
            cut = row is not logits  # laws and logs see the row before the cut
            h_applied = row_stats(logits, command[:, None]).h[:, 0] if cut else h_drawn
        shadow = self._law.shadow_command(state) if isinstance(self._law, Shadow) else None
        return Sampled(tokens, signal, command, h_applied, surprisal, shadow)

    def _measure(self, logits: Tensor, x_in: Tensor) -> tuple[RowStats, Tensor, Tensor]:
        """Return statistics, logits fit to sample from, and which rows were healthy.

        The columns are T = 1, T_cal (the same column where they are equal) and x_in.
        """
        fixed = (0.0,) if self._x_cal == 0.0 else (0.0, self._x_cal)
        x = torch.stack([*(torch.full_like(x_in, value) for value in fixed), x_in], dim=1)
        stats = row_stats(logits, x)
        healthy = stats.argmax >= 0
        if not bool(healthy.all()):
            logits = torch.where(healthy[:, None], logits, 0.0)
            stats = row_stats(logits, x)
        return stats, logits, healthy
