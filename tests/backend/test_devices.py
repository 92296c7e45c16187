"""The engine goes by its tensors: other kernels, another device, and where a model may be put."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend import place
from backend.attention import StepInputs
from backend.cache import PagedCache
from backend.models import LoadedModel
from backend.place import device_name, place_of
from backend.sampling import Sampled, Sampling
from backend.sensors import row_stats
from backend.sparse import SparseAttention
from backend.steps import forward, prepare
from controllers.core import TokenSignal
from controllers.presets import get_preset
from controllers.samplers import TopP
from controllers.serving.messages import Row
from kernels.dispatch import forced
from kernels.page_select.naive import Pins
from kernels.twins import NAIVE, twins_for
from tests.backend.tiny import engine, prompt_of, sparse, submission, tiny_model, tokens_of

ASKED = [submission(i, n, 12) for i, n in enumerate((140, 33))]
EVICTING = replace(get_preset("full"), kv_budget_pages=6, kv_burst_pages=1)
EVERYTHING = replace(sparse(0.7, name="full"), kv_budget_pages=6, kv_burst_pages=1)


@pytest.mark.parametrize(
    ("kernels", "preset"),
    [
        ("naive", get_preset("full")),
        ("naive", sparse(0.7)),
        ("naive", EVICTING),
        ("fused", EVERYTHING),  # in an interpreter that takes seconds
    ],
    ids=["naive full", "naive sparse", "naive evicting", "fused everything"],
)
def test_requests_get_the_same_tokens_through_every_twin_of_the_kernels(tiny, kernels, preset):
    native = tokens_of(engine(tiny, preset), ASKED)
    with forced(twins_for("cpu", kernels)):
        assert tokens_of(engine(tiny, preset), ASKED) == native


@pytest.mark.parametrize("scorer", ["mean_std", "quest", "lagged", "oracle"])
def test_a_step_on_another_device_mixes_no_tensors_with_those_of_the_host(scorer):
    loaded = tiny_model()
    loaded.model.to("meta")  # no numbers, but devices are checked and nothing can reach the host
    logits = _mixed_step(loaded, SparseAttention(min_pages=1, scorer=scorer))
    assert (logits.device.type, logits.shape) == ("meta", (3, loaded.vocabulary))


def _mixed_step(loaded: LoadedModel, options: SparseAttention) -> torch.Tensor:
    """Return the logits of a dense row, a pruned row, and a chunk in the middle of a prompt."""
    cache = PagedCache(
        layers=2,
        kv_heads=2,
        head_dim=16,
        n_pages=40,
        page_tokens=16,
        dtype=loaded.dtype,
        device=loaded.device,
        scorer=options.scorer,
    )
    rows = [
        Row(0, 69, 1, True, 1.0, False),
        Row(1, 100, 1, True, 0.5, False),
        Row(2, 20, 30, True, 1.0, False),
    ]
    pages = {0: list(range(5)), 1: list(range(5, 12)), 2: list(range(12, 16))}
    twins = NAIVE._replace(store=_store)  # the definition looks at numbers
    with pytest.MonkeyPatch.context() as patch, forced(twins), torch.no_grad():
        patch.setattr(
            StepInputs, "count", lambda _: None
        )  # it waits for numbers, of which are none
        patch.setattr(PagedCache, "note_mass", lambda *_: None)  # likewise
        step = prepare(rows, pages, cache, Pins(), sparse=options)
        return forward(loaded.model, list(prompt_of(32, 0)), rows, step)


def _store(*tensors: torch.Tensor) -> None:
    *stored, stats = tensors
    assert {each.device.type for each in (*stored, *stats)} == {"meta"}


def test_a_draw_on_another_device_mixes_no_tensors_with_those_of_the_host():
    def measured(self: Sampling, logits: torch.Tensor, x_in: torch.Tensor) -> object:
        """Measure as it does, but for the look at numbers, of which there are none."""
        stats = row_stats(logits, torch.stack([torch.zeros_like(x_in), x_in], dim=1))
        return stats, logits, stats.argmax >= 0

    preset = replace(get_preset("full"), stages=(TopP(p=0.9),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampling, "_measure", measured)
        sampling = Sampling(preset, device="meta")
        asked = [each.request for each in ASKED]
        for request in asked:
            sampling.add(request)
        for generated in ([0, 0], [1, 1]):
            drawn = sampling.step(asked, generated, torch.zeros(2, 257, device="meta"))
    for leaf in (drawn.tokens, *drawn.signal, drawn.command, drawn.h_applied, drawn.surprisal):
        assert (leaf.device.type, leaf.shape) == ("meta", (2,))


@pytest.mark.parametrize("shadowed", [False, True])
def test_what_a_step_drew_comes_to_the_host_whole(shadowed):
    lanes = iter(torch.randn(len(TokenSignal._fields) + 4, 3))
    signal = TokenSignal(*(next(lanes) for _ in TokenSignal._fields))
    rest = [next(lanes) for _ in range(3)]
    drawn = Sampled(torch.tensor([1, -1, 256]), signal, *rest, next(lanes) if shadowed else None)
    copied = drawn.copied()
    assert copied.tokens.tolist() == [1, -1, 256]
    for before, after in zip(drawn.signal, copied.signal, strict=True):
        assert torch.equal(before, after)
    for name in ("command", "h_applied", "surprisal", "shadow"):
        before, after = getattr(drawn, name), getattr(copied, name)
        assert before is after is None or torch.equal(before, after)
    assert drawn.on_host() is drawn


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("tpu", None), r"device must be cpu or cuda \(.*\); got 'tpu'"),
        (("cuda:1", None), r"device must be cpu or cuda \(.*\); got 'cuda:1'"),
        (("cuda", None), "device must be there: torch finds no CUDA device; got 'cuda'"),
        (("cpu", "bfloat16"), "dtype must be float32 on cpu; got 'bfloat16'"),
        (("cpu", "int8"), "dtype must be one of float32, float16, bfloat16; got 'int8'"),
    ],
)
def test_a_place_that_is_not_served_is_refused_by_name(monkeypatch, asked, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        place_of(*asked)


def test_cuda_holds_bfloat16_unless_asked_otherwise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert place_of("cuda") == (torch.device("cuda:0"), torch.bfloat16)
    assert place_of("cuda", "float32") == (torch.device("cuda:0"), torch.float32)
    assert place_of() == (torch.device("cpu"), torch.float32)
    assert device_name(torch.device("cpu")) == place.processor()


def test_keys_of_16_bits_keep_statistics_of_32():
    cache = PagedCache(
        layers=1, kv_heads=1, head_dim=4, n_pages=2, page_tokens=16, dtype=torch.bfloat16
    )
    assert {cache.k.dtype, cache.v.dtype} == {torch.bfloat16}
    assert {part.dtype for part in cache.stats[0]} == {torch.float32}
    with pytest.raises(ValueError, match="low_bit"):
        PagedCache(
            layers=1, kv_heads=1, head_dim=4, n_pages=2, page_tokens=16, device="meta",
            scorer="low_bit",
        )  # fmt: skip


def test_presets_of_a_test_really_prune_and_evict(tiny):
    made = engine(tiny, EVERYTHING)
    tokens_of(made, ASKED)
    steps = made.ledger.steps
    assert np.sum(steps["page_units_read"]) < np.sum(steps["page_units_dense"])
    assert np.sum(made.ledger.requests["pages_evicted"]) > 0
