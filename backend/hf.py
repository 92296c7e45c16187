"""Our temperature laws inside stock ``transformers``: a logits processor for ``generate()``.

    law = EntropyFeedback()
    control = EntropicLogitsProcessor(law, target_nats=2.0, temperature=0.8)
    model.generate(**inputs, do_sample=True, logits_processor=[control])
    control.commands  # ln T of every step and row

It divides the scores by the commanded temperature; ``generate`` then applies its own warpers (its
temperature, top-k, top-p) and samples. Leave ``generate``'s temperature at 1 and give the user's
here; ``top_k=0`` switches off the top-50 cut that generate applies unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from backend.sensors import row_stats
from controllers.certificates import require_target
from controllers.core import State, TemperatureLaw, TokenSignal, require
from controllers.samplers import Pipeline, Sampler, Shaped, Tempered
from controllers.serving.lane_table import UNCAPPED_X

_NORMALISED = 1e-3  # nats: a row whose ln sum exp is this near 0 holds log-probabilities
PerRow = float | Sequence[float]


class EntropicLogitsProcessor(LogitsProcessor):
    """Set the temperature of each row of a batch by a law of its entropy.

    One lane per row: rows do not see each other, so padding and other prompts change nothing. State
    starts anew when the ids are not last call's plus one token; call ``reset`` to force it, as when
    a prompt happens to be exactly what the last call generated. Greedy search is left as it is, for
    a positive temperature moves no argmax. A row with NaN, +inf or nothing left, and a row after
    one of ``eos_token_ids``, passes unchanged and its state holds.

    Beam search is refused: a beam takes over another's ids but could not take its state. Assisted
    decoding is not supported, for its rejected tokens would stay in the state.
    """

    def __init__(
        self,
        law: TemperatureLaw | Sampler,
        *,
        target_nats: PerRow,
        temperature: PerRow = 1.0,
        one_sided: bool = False,
        t_cal: float = 1.0,
        stages: tuple[Sampler, ...] = (),
        eos_token_ids: Sequence[int] = (),
    ) -> None:
        """Take a temperature law, or a sampler that sets temperatures, and what it aims at.

        Args:
            law: ours, from ``controllers.temperature`` or ``controllers.samplers``.
            target_nats: entropy set-point H*, one for all rows or one each.
            temperature: where T starts, and where it stays for lanes no law moves; alike.
            one_sided: whether T may never exceed ``temperature``.
            t_cal: calibration temperature, for laws that read ``h_cal``.
            stages: truncations after the temperature, in order.
            eos_token_ids: tokens that end a row; needed only to hold the state of ended rows.
        """
        heat = Tempered(law=law) if isinstance(law, TemperatureLaw) else law
        require(math.isfinite(t_cal) and t_cal > 0, "t_cal must be positive", t_cal=t_cal)
        for value in _listed(temperature):
            rule = "temperature must be positive; use do_sample=False for greedy search"
            require(math.isfinite(value) and value > 0, rule, temperature=value)
        self._pipeline = Pipeline(temperature=heat, stages=stages)
        self._targets, self._temperatures = target_nats, temperature
        self._one_sided, self._x_cal = one_sided, math.log(t_cal)
        self._eos = tuple(eos_token_ids)
        self.reset()

    def reset(self) -> None:
        """Forget every lane; the next call starts anew."""
        self._ids: Tensor | None = None  # ids [B, L] of the last call
        self._commands: list[Tensor] = []
        self._signal: TokenSignal | None = None  # what the rows fix, and the last surprisal
        self._state: State = ()
        self._last: tuple[Shaped, Tensor, Tensor] | None = None  # shaped, scores, rows in control

    @property
    def commands(self) -> Tensor:
        """ln T applied since the last start, ``[steps, B]``; NaN where a row passed unchanged."""
        return torch.stack(self._commands) if self._commands else torch.empty(0, 0)

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return ``scores [B, n]`` divided by each row's temperature; ``input_ids [B, L]``."""
        z = scores.float()
        stats = row_stats(z, torch.tensor([0.0, self._x_cal], device=z.device).expand(len(z), 2))
        signal = self._follow(input_ids, z, stats.lse[:, 0])
        live = (stats.argmax >= 0) & ~self._ended(input_ids)
        signal = signal._replace(h_cal=stats.h[:, 1], v_cal=stats.v[:, 1])
        shaped = self._pipeline.shape(self._state, torch.where(live[:, None], z, 0.0), signal)
        self._last, self._ids, self._signal = (shaped, z, live), input_ids, signal
        self._commands.append(torch.where(live, shaped.x, math.nan))
        return torch.where(live[:, None], shaped.logits, z).to(scores.dtype)

    def _follow(self, ids: Tensor, z: Tensor, lse: Tensor) -> TokenSignal:
        """Return the signal of this step, having taken the last one's tokens into the state."""
        before, signal = self._ids, self._signal
        if before is None or signal is None or ids.shape != (len(before), before.shape[1] + 1):
            return self._start(ids, z, lse)
        if not torch.equal(ids[:, :-1], before):
            if _same_rows(ids[:, :-1], before):
                raise ValueError("logits_processor: rows changed places; beam search is refused")
            return self._start(ids, z, lse)
        assert self._last is not None
        shaped, scores, live = self._last
        token = ids[:, -1]
        self._state = self._pipeline.accept(self._state, shaped, torch.where(live, token, -1))
        p = scores.log_softmax(-1).gather(1, token[:, None])[:, 0]
        surprisal = torch.where(live & p.isfinite(), -p, signal.surprisal)
        return signal._replace(surprisal=surprisal, position=signal.position + 1.0)

    def _start(self, ids: Tensor, z: Tensor, lse: Tensor) -> TokenSignal:
        """Begin fresh lanes; refuse log-probabilities of rows that come in equal pairs."""
        self.reset()
        rows, vocabulary = z.shape
        paired = rows > 1 and bool((ids[0] == ids[1]).all())
        if paired and bool((lse.abs() < _NORMALISED).all()):
            raise ValueError("logits_processor: beam search is refused; set num_beams=1")
        targets = _lanes("target_nats", self._targets, z)
        for target in targets.tolist():
            require_target(target, vocabulary)
        x_user = _lanes("temperature", self._temperatures, z).log()
        h_cal, v_cal, h_in, v_in, surprisal, position = torch.zeros(6, rows, device=z.device)
        signal = TokenSignal(
            h_cal=h_cal,
            v_cal=v_cal,
            h_in=h_in,
            v_in=v_in,
            surprisal=surprisal,
            target_nats=targets,
            x_user=x_user,
            x_cap=x_user.clone() if self._one_sided else torch.full_like(x_user, UNCAPPED_X),
            enabled=torch.ones_like(x_user),
            position=position,
        )
        self._state = self._pipeline.init(signal)
        self._finished = torch.zeros(rows, dtype=torch.bool, device=z.device)
        return signal

    def _ended(self, ids: Tensor) -> Tensor:
        """Return which rows have generated an end token since the start, ``[B]``."""
        if self._eos and self._commands:  # before the first step the last token is the prompt's
            ends = torch.tensor(self._eos, device=ids.device)
            self._finished = self._finished | torch.isin(ids[:, -1], ends)
        return self._finished


def _listed(values: PerRow) -> list[float]:
    return [float(values)] if isinstance(values, int | float) else [float(v) for v in values]


def _lanes(name: str, values: PerRow, z: Tensor) -> Tensor:
    given = _listed(values)
    rule = f"{name} must be one number or one for each of the {len(z)} rows"
    require(len(given) in (1, len(z)), rule, **{name: len(given)})
    return torch.tensor(given, device=z.device).expand(len(z)).clone()


def _same_rows(a: Tensor, b: Tensor) -> bool:
    """Whether every row of ``a`` is one of ``b``'s: what a beam search does between steps."""
    return bool((a[:, None] == b[None]).all(-1).any(1).all())
