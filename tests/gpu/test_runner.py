"""The device runner is the CPU engine with another forward pass: same laws, draws and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from backend.errors import UnsupportedModel
from backend.gpu.cache import DeviceCache
from backend.gpu.control import Control, Plain
from backend.gpu.decoder import Decoder, Reads
from backend.gpu.runner import DecodeRunner
from backend.gpu.shapes import SHAPES
from backend.gpu.weights import weights_of
from controllers.coverage import EntropyCoverage
from controllers.presets import get_preset
from controllers.serving.request import Request
from kernels.twins import Name, twins_for
from tests.backend.tiny import engine, prompt_of, sparse, submission, tiny_model, tokens_of

STEPS = 24
PROMPTS = (70, 33, 90)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def requests(**fields: object) -> list[Request]:
    return [submission(i, n, STEPS, **fields).request for i, n in enumerate(PROMPTS)]


def runner(
    asked: list[Request],
    preset: object = None,
    kernels: Name = "naive",
    *,
    steps: int = STEPS,
    counts: bool = False,
    compiled: bool = False,
) -> DecodeRunner:
    """Make a runner of the tiny model past its prompts; without a preset it is uncontrolled."""
    twins = twins_for("cpu", kernels)
    decoder = Decoder(weights_of(tiny_model().model), twins, compiled=compiled)
    shape = decoder.weights.shape
    cache = DeviceCache(
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rows=len(asked),
        capacity=max(r.prompt_tokens for r in asked) + steps,
        dtype=torch.float32,
        device="cpu",
    )
    sampler = Plain(asked, twins, steps=steps, device="cpu")
    if preset is not None:
        sampler = Control(preset, asked, twins, steps=steps, device="cpu", min_pages=1)
    made = DecodeRunner(decoder, cache, sampler, steps=steps, counts=counts)
    made.prefill([prompt_of(r.prompt_tokens, r.request_id) for r in asked])
    return made


def served(preset: object, **fields: object) -> dict[int, tuple[int, ...]]:
    """Return what the CPU engine generates, which ends at its stop token."""
    loaded = tiny_model()
    given = [submission(i, n, STEPS, **fields) for i, n in enumerate(PROMPTS)]
    return tokens_of(engine(loaded, preset), given)


def agrees(made: DecodeRunner, wanted: dict[int, tuple[int, ...]]) -> None:
    got = made.tokens.tolist()
    assert sum(map(len, wanted.values())) > STEPS, "the engine stopped early"
    for row, tokens in wanted.items():
        assert got[row][: len(tokens)] == list(tokens)


def test_greedy_tokens_are_those_of_transformers():
    model = tiny_model().model
    model.set_attn_implementation("eager")
    asked = requests(temperature=0.0)
    made = runner(asked)
    made.run(STEPS - 1)
    for request, tokens in zip(asked, made.tokens.tolist(), strict=True):
        ids = torch.tensor([prompt_of(request.prompt_tokens, request.request_id)])
        for token in tokens:
            assert int(model(input_ids=ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


@pytest.mark.parametrize("name", ["baseline", "sampling", "full", "seed", "best"])
def test_sampled_tokens_are_those_of_the_cpu_engine(name):
    made = runner(requests(temperature=0.9), get_preset(name))
    made.run(STEPS - 1)
    agrees(made, served(get_preset(name), temperature=0.9))


def test_sparse_tokens_are_those_of_the_cpu_engine():
    preset = sparse(0.8, name="sampling")
    made = runner(requests(), preset, counts=True)
    made.run(STEPS - 1)
    agrees(made, served(preset))
    assert 0 < int(made.pages_read) < int(made.pages_dense)


@pytest.mark.parametrize("preset", [None, sparse(0.8, name="sampling")], ids=["plain", "sparse"])
def test_the_interpreted_triton_kernels_draw_the_same_tokens(preset):
    pytest.importorskip("triton")
    asked = requests()[:2]
    runs = [runner(asked, preset, name, steps=2) for name in ("naive", "fused")]
    for made in runs:
        made.run(1)
    assert torch.equal(runs[0].tokens, runs[1].tokens)


def test_the_rules_around_the_coverage_law_are_those_of_the_cpu_engine():
    law = EntropyCoverage(p_min=0.5, p_max=0.9, dwell=2)
    preset = replace(
        get_preset("full"), coverage=law, sparse_min_context=80, probe_every=5
    )  # the third row is long enough at once, the first after ten tokens, the second never
    made = runner(requests(temperature=0.9), preset, counts=True)
    made.run(STEPS - 1)
    agrees(made, served(preset, temperature=0.9))
    assert 0 < int(made.pages_read) < int(made.pages_dense)


def test_requests_out_of_control_are_served_as_the_cpu_engine_does():
    preset = sparse(0.7, name="sampling")
    made = runner(requests(temperature=0.9, enabled=False), preset)
    made.run(STEPS - 1)
    agrees(made, served(preset, temperature=0.9, enabled=False))


def test_qwen3_with_its_head_norms_decodes_as_transformers_does():
    config = Qwen3Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.5,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Qwen3ForCausalLM(config).eval()
    decoder = Decoder(weights_of(model), twins_for("cpu"))
    cache = DeviceCache(
        layers=2,
        kv_heads=2,
        head_dim=16,
        rows=1,
        capacity=24,
        dtype=torch.float32,
        device="cpu",
    )
    tokens = torch.arange(20) * 7 % 97
    with torch.no_grad():
        first = decoder.prefill(tokens[:19], cache, 0)
        at = cache.at(torch.tensor([20]))
        second = decoder.decode(tokens[19:], torch.tensor([19]), cache, at, Reads())
        wanted = model(input_ids=tokens[None]).logits[0, -2:]
    torch.testing.assert_close(torch.cat([first, second]), wanted, rtol=1e-4, atol=1e-4)


def test_models_the_runner_does_not_compute_are_refused():
    config = Qwen2Config(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, vocab_size=9)
    model = Qwen2ForCausalLM(config)
    with pytest.raises(UnsupportedModel, match="model_type: the GPU runner serves"):
        weights_of(model)


def test_the_published_shapes_have_the_parameters_their_names_say():
    sizes = {name: SHAPES[name].parameters for name in ("llama-3-8b", "qwen3-8b", "smollm2-135m")}
    assert sizes == {
        "llama-3-8b": 8_030_261_248,
        "qwen3-8b": 8_190_735_360,
        "smollm2-135m": 134_515_008,
    }


def test_a_run_in_pieces_is_the_run_in_one():
    whole, pieces = (runner(requests(), get_preset("full")) for _ in range(2))
    whole.run(10)
    for part in (1, 6, 3):
        pieces.run(part)
    assert torch.equal(whole.tokens, pieces.tokens)


def test_steps_beyond_the_room_are_refused():
    made = runner(requests(), steps=4)
    with pytest.raises(ValueError, match="steps: 3 are left of 4; got 4"):
        made.run(4)
