"""Our laws inside stock ``generate()``: the engine's commands, row by row, and clean refusals."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.hf import EntropicLogitsProcessor
from backend.models import LoadedModel
from backend.sampling import Sampling
from controllers import entropy
from controllers.presets import get_preset
from controllers.samplers import DynaTemp, Tempered, TopK
from controllers.serving.request import Request
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback, FixedTemperature
from tests.backend.tiny import STOP, prompt_of

TARGET = 2.0


@pytest.fixture(scope="module")
def network(tiny: LoadedModel) -> Any:
    """The tiny model with stock attention."""
    made = type(tiny.model)(copy.deepcopy(tiny.model.config)).eval()
    made.load_state_dict(tiny.model.state_dict())
    made.set_attn_implementation("eager")
    return made


def batch(*lengths: int) -> dict[str, Tensor]:
    """Prompts of these lengths, padded on the left."""
    ids = torch.full((len(lengths), max(lengths)), STOP)
    for row, length in enumerate(lengths):
        ids[row, max(lengths) - length :] = torch.tensor(prompt_of(length, row))
    return {"input_ids": ids, "attention_mask": (ids != STOP).long()}


def generate(network: Any, control: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    torch.manual_seed(options.pop("seed", 0))
    defaults = {"max_new_tokens": 40, "do_sample": True, "top_k": 0, "eos_token_id": None}
    return network.generate(
        **inputs,
        logits_processor=[control] if control else None,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=STOP,
        **(defaults | options),
    )


def processor(law: Any = None, **options: Any) -> EntropicLogitsProcessor:
    given = {"target_nats": TARGET, "temperature": 0.8} | options
    return EntropicLogitsProcessor(law or EntropyFeedback(), **given)


def engine_commands(logits: tuple[Tensor, ...], rows: int) -> Tensor:
    """The ln T our engine commands on the same logits, ``[steps, B]``."""
    sampling = Sampling(get_preset("full"))
    requests = [
        Request(request_id=i, prompt_tokens=1, max_tokens=99, temperature=0.8, target_nats=TARGET)
        for i in range(rows)
    ]
    for request in requests:
        sampling.add(request)
    steps = enumerate(logits)
    return torch.stack([sampling.step(requests, [t] * rows, z).command for t, z in steps])


@pytest.mark.parametrize("lengths", [(9,), (5, 12, 30)])
def test_commands_are_those_of_the_engine_on_the_same_logits(network, lengths):
    control = processor()
    out = generate(network, control, batch(*lengths))
    expected = engine_commands(out.logits, len(lengths))
    assert control.commands.shape == (40, len(lengths))
    torch.testing.assert_close(control.commands, expected, rtol=0.0, atol=1e-5)


def test_feedback_steers_the_entropy_and_keeps_off_the_clips(network):
    control, fixed = processor(), processor(FixedTemperature())
    found = []
    for steering in (fixed, control):
        out = generate(network, steering, batch(6, 6, 6, 6, 6, 6), max_new_tokens=150)
        z = torch.stack(out.logits).numpy()
        found.append(entropy.entropy_varentropy(z, steering.commands.numpy())[0][50:].mean())
    assert abs(found[1] - TARGET) < abs(found[0] - TARGET)
    clipped = (control.commands <= X_MIN) | (control.commands >= X_MAX)
    assert float(clipped.float().mean()) < 0.05
    assert float(control.commands[-1].std()) > 0.0  # every row has its own


def test_a_fixed_temperature_is_generates_own(network):
    inputs = batch(7, 11)
    ours = generate(network, processor(FixedTemperature(), temperature=0.6), inputs)
    stock = generate(network, None, inputs, temperature=0.6)
    assert torch.equal(ours.sequences, stock.sequences)


def test_generates_own_cuts_come_after(network):
    inputs = batch(8)
    ours = generate(network, processor(), inputs, top_k=1)
    greedy = generate(network, None, inputs, do_sample=False)
    assert torch.equal(ours.sequences, greedy.sequences)


def test_greedy_search_is_left_alone(network):
    inputs = batch(8, 3)
    ours = generate(network, processor(), inputs, do_sample=False)
    assert torch.equal(ours.sequences, generate(network, None, inputs, do_sample=False).sequences)


def test_truncations_of_ours_run_after_the_law(network):
    inputs = batch(8, 3)
    ours = generate(network, processor(stages=(TopK(k=1),)), inputs)
    greedy = generate(network, None, inputs, do_sample=False)
    assert torch.equal(ours.sequences, greedy.sequences)


def test_a_sampler_may_set_the_temperature(network):
    control = processor(DynaTemp(reach=0.3))
    generate(network, control, batch(8))
    assert float(control.commands.min()) >= math.log(0.5) - 1e-5
    assert float(control.commands.max()) <= math.log(1.1) + 1e-5
    assert len(control.commands.unique()) > 10
    wrapped = processor(Tempered(law=EntropyFeedback()))
    plain = processor()
    for one in (wrapped, plain):
        generate(network, one, batch(8))
    assert torch.equal(wrapped.commands, plain.commands)


def test_a_row_does_not_see_its_batch(network):
    scores = torch.randn(6, 3, 50, generator=torch.Generator().manual_seed(0)) * 3
    ids = torch.arange(24).reshape(3, 8)
    together, alone = processor(), processor()
    for t in range(6):
        whole = together(ids[:, : t + 1], scores[t])
        assert torch.equal(alone(ids[1:2, : t + 1], scores[t, 1:2])[0], whole[1])


def test_each_generation_starts_anew(network):
    control = processor()
    inputs = batch(8, 3)
    first = generate(network, control, inputs)
    commands = control.commands
    again = generate(network, control, inputs)
    assert torch.equal(first.sequences, again.sequences)
    assert torch.equal(commands, control.commands)


def test_each_row_may_have_its_own_target_and_temperature(network):
    control = processor(FixedTemperature(), target_nats=[1.0, 2.0], temperature=[0.5, 1.2])
    generate(network, control, batch(4, 4), max_new_tokens=3)
    expected = torch.tensor([0.5, 1.2]).log().expand(3, 2)
    torch.testing.assert_close(control.commands, expected)


def test_one_sided_control_never_exceeds_the_users_temperature(network):
    control = processor(target_nats=4.5, one_sided=True)
    generate(network, control, batch(4, 9))
    assert float(control.commands.max()) <= math.log(0.8) + 1e-6


def test_a_row_that_ended_holds_its_state_and_passes_unchanged():
    control = processor(eos_token_ids=[7])
    scores = torch.randn(4, 2, 50, generator=torch.Generator().manual_seed(0)) * 3
    ids = torch.tensor([[1, 2, 7, 7, 7], [1, 7, 3, 4, 5]])  # a prompt may end with an end token
    for t in range(4):
        out = control(ids[:, : t + 2], scores[t])
        assert torch.equal(out[0], scores[t, 0]) == (t > 0)
        assert not torch.equal(out[1], scores[t, 1])
    ended = control.commands.isnan()
    assert ended[:, 0].tolist() == [False, True, True, True]
    assert not ended[:, 1].any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_spoiled_row_passes_unchanged_and_holds_its_state(value):
    scores = torch.randn(5, 2, 50, generator=torch.Generator().manual_seed(0)) * 3
    clean, spoiled = processor(), processor()
    ids = torch.arange(20).reshape(2, 10)
    for t in range(5):
        bad = scores[t].clone()
        if t == 2:
            bad[0, 3] = value
        expected, out = clean(ids[:, : t + 1], scores[t]), spoiled(ids[:, : t + 1], bad)
        assert torch.equal(out[1], expected[1])
        if t == 2:
            torch.testing.assert_close(out[0], bad[0], equal_nan=True, rtol=0, atol=0)
    assert spoiled.commands[2, 0].isnan()
    held = spoiled.commands[3, 0] - spoiled.commands[1, 0]
    assert abs(float(held)) <= EntropyFeedback().rate + 1e-6  # one move, not two


def test_the_surprisal_of_the_last_token_reaches_the_law():
    control = processor()
    scores = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(0)) * 3
    control(torch.tensor([[4]]), scores[0])
    control(torch.tensor([[4, 9]]), scores[1])
    assert control._signal is not None
    expected = -scores[0].log_softmax(-1)[0, 9]
    assert float(control._signal.surprisal[0]) == pytest.approx(float(expected), abs=1e-5)
    assert control._signal.position.tolist() == [1.0]


def test_beam_search_is_refused(network):
    with pytest.raises(ValueError, match="beam search is refused"):
        generate(network, processor(), batch(8), num_beams=3, do_sample=False)
    generate(network, processor(), batch(8), num_return_sequences=3, max_new_tokens=4)


def test_rows_that_change_places_are_refused():
    control = processor()
    ids = torch.tensor([[1, 2], [3, 4]])
    control(ids, torch.randn(2, 30))
    moved = torch.cat([ids.flip(0), torch.tensor([[5], [6]])], dim=1)
    with pytest.raises(ValueError, match="rows changed places"):
        control(moved, torch.randn(2, 30))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be positive"),
        ({"t_cal": -1.0}, "t_cal must be positive"),
        ({"target_nats": 9.0}, "target_nats must lie in"),
        ({"target_nats": [1.0, 2.0]}, "target_nats must be one number or one for each of the 3"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, text):
    with pytest.raises(ValueError, match=text):
        processor(**options)(torch.zeros(3, 1, dtype=torch.long), torch.randn(3, 40))


def test_no_command_before_the_first_step():
    assert processor().commands.numel() == 0
    assert np.isfinite(processor(FixedTemperature()).commands.numpy()).all()
