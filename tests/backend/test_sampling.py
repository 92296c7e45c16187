"""The sampling half of a step, away from any model: what is measured where, and who fails alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.sampling import Sampled, Sampling
from controllers import entropy
from controllers.presets import Preset, get_preset
from controllers.samplers.core import NoState, Shaped, unheated
from controllers.serving.request import Request


def requests(n: int) -> list[Request]:
    return [
        Request(request_id=i, prompt_tokens=1, max_tokens=9, temperature=0.7, seed=i)
        for i in range(n)
    ]


def logits_of(n_rows: int, n: int = 300) -> Tensor:
    return torch.randn(n_rows, n, generator=torch.Generator().manual_seed(2)) * 3


def sampled(preset: Preset, logits: Tensor, *, t_cal: float = 1.0, steps: int = 1) -> Sampled:
    sampling, wanted = Sampling(preset, t_cal=t_cal), requests(len(logits))
    for request in wanted:
        sampling.add(request)
    found = [sampling.step(wanted, [t] * len(wanted), logits) for t in range(steps)]
    return found[-1]


def test_each_entropy_is_measured_at_its_own_temperature():
    z = logits_of(4)
    for t_cal in (1.0, 1.6):
        found = sampled(get_preset("full"), z, t_cal=t_cal)
        for x, h, v in (
            (math.log(t_cal), found.signal.h_cal, found.signal.v_cal),
            (math.log(0.7), found.signal.h_in, found.signal.v_in),
        ):
            expected = entropy.entropy_varentropy(z.numpy(), np.full(4, x))
            np.testing.assert_allclose(h, expected[0], atol=1e-5)
            np.testing.assert_allclose(v, expected[1], atol=1e-4)
        applied = entropy.entropy_varentropy(z.numpy(), found.command.numpy())[0]
        np.testing.assert_allclose(found.h_applied, applied, atol=1e-5)
        log_p = z.log_softmax(-1).gather(1, found.tokens[:, None])[:, 0]
        np.testing.assert_allclose(found.surprisal, -log_p, atol=1e-5)


def test_a_step_without_rows_gives_nothing():
    sampling = Sampling(get_preset("full"))
    sampling.add(requests(1)[0])
    found = sampling.step([], [], torch.empty(0, 300))
    assert found.tokens.shape == found.command.shape == found.surprisal.shape == (0,)


def test_every_row_may_fail_at_once():
    found = sampled(get_preset("full"), torch.full((3, 50), math.nan))
    assert found.tokens.tolist() == [-1, -1, -1]
    assert all(leaf.isfinite().all() for leaf in (*found.signal, found.command, found.surprisal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoils:
    """A truncation with a fault: it makes NaN of its second row."""

    def init(self, signal: Any) -> NoState:
        return NoState()

    def shape(self, state: NoState, logits: Tensor, signal: Any) -> Shaped:
        spoiled = logits.clone()
        spoiled[1] = math.nan
        return unheated(spoiled)

    def accept(self, state: NoState, shaped: Shaped, token: Tensor) -> NoState:
        return state


def test_a_row_that_a_truncation_spoils_fails_alone():
    z = logits_of(3)
    clean = sampled(get_preset("full"), z)
    found = sampled(replace(get_preset("full"), stages=(Spoils(),)), z)
    assert found.tokens[1] == -1
    assert found.tokens[[0, 2]].tolist() == clean.tokens[[0, 2]].tolist()


def test_a_row_does_not_depend_on_its_batch():
    z = logits_of(5)
    whole = sampled(get_preset("best"), z, steps=3)
    few = sampled(get_preset("best"), z[:2], steps=3)
    for together, alone in zip(
        (whole.tokens, whole.command, whole.h_applied, whole.surprisal),
        (few.tokens, few.command, few.h_applied, few.surprisal),
        strict=True,
    ):
        assert torch.equal(together[:2], alone)
