"""Make device runners for the stages: a shape, a batch, a preset, random weights or real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from backend.gpu.cache import DeviceCache
from backend.gpu.control import Control, Plain
from backend.gpu.decoder import Decoder
from backend.gpu.runner import DecodeRunner
from backend.gpu.shapes import SHAPES, DecoderShape
from backend.gpu.weights import Weights, random_weights
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from controllers.presets import get_preset
from controllers.serving.request import Request
from reports.gpu.place import Place
from reports.gpu.record import Record


def batch_of(
    rows: int, prompt_tokens: int, steps: int, *, temperature: float = 0.8
) -> list[Request]:
    """Return ``rows`` requests alike but for their seeds."""
    return [
        Request(
            request_id=index,
            prompt_tokens=prompt_tokens,
            max_tokens=steps,
            temperature=temperature,
            seed=1000 + index,
        )
        for index in range(rows)
    ]


def controlled(name: str, coverage: float | None = None) -> Preset:
    """Return a preset; with ``coverage`` that is held, from the first row on and without probes."""
    preset = get_preset(name)
    if coverage is None:
        return preset
    law = FixedCoverage(coverage=coverage)
    return replace(preset, coverage=law, sparse_min_context=0, probe_every=0)


def empty_cache(
    place: Place, shape: DecoderShape, rows: int, capacity: int, dtype: torch.dtype
) -> DeviceCache:
    """Allocate a cache of ``shape`` for ``rows`` of up to ``capacity`` tokens.

    What earlier caches left in torch's pool is given back before: during a capture, when the card
    is full, it could not be.
    """
    if place.cuda:
        torch.cuda.empty_cache()
    return DeviceCache(
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rows=rows,
        capacity=capacity,
        dtype=dtype,
        device=place.device,
    )


def make_runner(
    place: Place,
    requests: Sequence[Request],
    preset: Preset | None,
    *,
    capacity: int,
    steps: int,
    weights: Weights | None = None,
    decoder: Decoder | None = None,
    cache: DeviceCache | None = None,
    prompts: bool = False,
    selects: bool = True,
    compiled_laws: bool = False,
    masses: bool = False,
    counts: bool = False,
) -> DecodeRunner:
    """Return a runner with its first tokens drawn; without a preset nothing is controlled.

    Args:
        weights: by default random ones of the tiny shape.
        cache: one already filled; ``prompts`` computes random prompts instead.
    """
    decoder = decoder or Decoder(weights or _tiny(place), place.twins())
    shape, rows = decoder.weights.shape, len(requests)
    kept = cache or empty_cache(place, shape, rows, capacity, decoder.weights.dtype)
    asked, twins = list(requests), decoder.twins
    if preset is None:
        sampler = Plain(asked, twins, steps=steps, device=place.device)
    else:
        sampler = Control(
            preset,
            asked,
            twins,
            steps=steps,
            device=place.device,
            min_pages=1,
            selects=selects,
            compiled=compiled_laws,
        )
    made = DecodeRunner(decoder, kept, sampler, steps=steps, masses=masses, counts=counts)
    if prompts:
        made.prefill(random_prompts(shape.vocabulary, [r.prompt_tokens for r in asked]))
    else:
        first = random_prompts(shape.vocabulary, [1] * rows)
        made.pretend(torch.tensor(first, device=place.device)[:, 0])
    return made


def compiled_decoder(place: Place, record: Record, weights: Weights) -> Decoder:
    """Return a decoder whose torch.compile was tried on one step; an eager one where that fails.

    On CPU nothing is compiled. A failure is a row of the record.
    """
    if place.cuda:
        decoder = Decoder(weights, place.twins(), compiled=True)
        try:
            made = make_runner(
                place, batch_of(1, 32, 4), None, capacity=64, steps=4, decoder=decoder
            )
            made.run(1)
            torch.cuda.synchronize()
            return decoder
        except Exception as error:  # torch.compile fails in ways of its own
            record.failed("torch_compile", error, model=weights.shape.name)
    return Decoder(weights, place.twins())


def random_prompts(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Return the prompts that ``make_runner`` computes, the same in every run."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocabulary, length).tolist() for length in lengths]


def _tiny(place: Place) -> Weights:
    """Return weights large enough that attention moves the logits, small enough for a dry run."""
    dtype = torch.bfloat16 if place.cuda else torch.float32
    return random_weights(SHAPES["tiny"], dtype=dtype, device=place.device)
