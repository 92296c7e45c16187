"""Stage ``calibrate``: the step law of this device, fitted to whole steps, as a profile.

Decode steps replay their graph, dense and pruned; prompts are computed alone, each in one pass. A
step that mixes both is not timed, for the runner has none, and the profile says so.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import torch

from backend.gpu.cache import DeviceCache
from backend.gpu.decoder import Decoder
from backend.gpu.runner import WARMUP, DecodeRunner
from backend.gpu.shapes import SHAPES, DecoderShape
from backend.gpu.weights import Weights, random_weights
from backend.profile_fit import fit
from backend.profile_points import Point, ranges_of
from controllers.serving.limits import EngineLimits
from controllers.steplaw import chunk_squares
from reports.gpu.place import LIBRARIES, Place
from reports.gpu.record import Record
from reports.gpu.runners import batch_of, compiled_decoder, controlled, empty_cache, make_runner
from reports.gpu.timing import Timing, time_steps
from traces.console import package_versions
from traces.profile import Profile, write_profile

MODELS, DRY_MODELS = ("llama-3-8b", "smollm2-135m"), ("tiny",)
BATCHES, CONTEXTS = (1, 2, 4, 8, 16, 32, 64, 128), (1024, 2048, 4096, 8192, 16384, 32768, 65536)
SPARSE_FROM, SPARSE_BATCHES, COVERAGES = 4096, (1, 8, 32), (0.5, 0.1)
PROMPTS = (64, 256, 512, 1024, 2048, 4096, 8192)
DRY_BATCHES, DRY_CONTEXTS, DRY_PROMPTS = (1, 2), (32, 64, 96), (16, 32, 48)
LONGEST = {"smollm2-135m": 8192}  # what the model was made for
TIMED = 15  # steps of a grid point
LEAST_POINTS = 8
PAGE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One kind of step: decode rows at one context, or one whole prompt."""

    batch: int = 0
    context: int = 0
    coverage: float = 1.0
    prompt: int = 0

    def point(self, index: int, timing: Timing, kept: float, shape: DecoderShape) -> Point:
        """Return what the fit reads of it."""
        pages = -(-self.context // PAGE) * shape.layers * shape.kv_heads
        return Point(
            stage=index,
            kind="prefill" if self.prompt else "sparse" if self.coverage < 1.0 else "decode",
            n_decode=self.batch,
            kv_tokens_read=self.batch * self.context * kept,
            prompt_tokens=self.prompt,
            prompt_squares=chunk_squares(0, self.prompt) if self.prompt else 0,
            kv_longest=self.context * kept,
            pages_scored=self.batch * pages if self.coverage < 1.0 else 0,
            seconds=timing.median_s,
            spread=(timing.high_s - timing.low_s) / timing.median_s,
            samples=timing.repeats,
        )


def calibrate(place: Place, record: Record) -> None:
    """Time a grid of steps of each model and write ``profile-<model>.json`` beside the record."""
    names = DRY_MODELS if place.dry else MODELS
    for index, name in enumerate(names):
        shape = SHAPES[name]
        dtype = torch.bfloat16 if place.cuda else torch.float32
        weights = random_weights(shape, dtype=dtype, device=place.device)
        shots = _shots(place, shape)  # while only the weights are there
        room = place.free_bytes()
        points = _timed(place.share((index + 1) / len(names)), record, weights, shots)
        if len(points) < LEAST_POINTS:
            record.add("skipped", model=name, note=f"{len(points)} points are too few to fit")
            continue
        profile = _profile(place, shape, dtype, points, room)
        path = record.path.with_name(f"profile-{name}.json")
        write_profile(path, profile)
        record.add(
            "profile",
            model=name,
            file=path.name,
            points=len(points),
            **profile.fit_error,
            step_law=profile.step_law,
        )
        del weights
        if place.cuda:
            torch._dynamo.reset()  # its caches would hold the weights


def _timed(place: Place, record: Record, weights: Weights, shots: list[Shot]) -> list[Point]:
    decoder = compiled_decoder(place, record, weights)
    shape, points = weights.shape, list[Point]()
    for index, shot in enumerate(shots):
        fields = {
            "model": shape.name,
            "batch": shot.batch,
            "context": shot.context,
            "coverage": shot.coverage,
            "prompt": shot.prompt,
        }
        if place.late:
            record.add("skipped", **fields)
            continue
        try:
            timing, kept = (_prompt if shot.prompt else _step)(place, decoder, shot)
        except Exception as error:  # a kernel compiler raises types of its own
            record.failed("grid", error, **fields)
            continue
        points.append(shot.point(index, timing, kept, shape))
        record.add("grid", **fields, kept_share=kept, **timing.fields())
    return points


def _shots(place: Place, shape: DecoderShape) -> list[Shot]:
    """Return the grid in a shuffled order: a slow spell, or an early end, touches all alike."""
    longest, room = LONGEST.get(shape.name, 1 << 20), place.free_bytes()
    sizes = {"layers": shape.layers, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    shots = []
    for batch in DRY_BATCHES if place.dry else BATCHES:
        for context in DRY_CONTEXTS if place.dry else CONTEXTS:
            needed = DeviceCache.bytes_of(**sizes, rows=batch, capacity=context + 64, element=2)
            if context > longest or needed > room:
                continue
            shots.append(Shot(batch=batch, context=context))
            if place.dry or (context >= SPARSE_FROM and batch in SPARSE_BATCHES):
                shots += [Shot(batch=batch, context=context, coverage=c) for c in COVERAGES]
    prompts = DRY_PROMPTS if place.dry else PROMPTS
    shots += [Shot(prompt=prompt) for prompt in prompts]
    order = np.random.default_rng(0).permutation(len(shots))
    return [shots[i] for i in order]


def _step(place: Place, decoder: Decoder, shot: Shot) -> tuple[Timing, float]:
    """Return the time of a decode step, and the share of its pages that it reads."""
    timed = 3 if place.dry else TIMED
    steps = timed + 2 * WARMUP + 2
    shape, dtype = decoder.weights.shape, decoder.weights.dtype
    cache = empty_cache(place, shape, shot.batch, shot.context + steps, dtype)
    cache.fill()
    asked = batch_of(shot.batch, shot.context, steps)
    pruned = shot.coverage < 1.0
    preset = controlled("attention", shot.coverage) if pruned else None

    def runner(*, counts: bool) -> DecodeRunner:
        return make_runner(
            place,
            asked,
            preset,
            capacity=cache.capacity,
            steps=steps,
            decoder=decoder,
            cache=cache,
            counts=counts,
        )

    made = runner(counts=False)
    made.run(WARMUP + 1, graph=place.cuda)
    timing = time_steps(lambda: made.run(1, graph=place.cuda), timed, place, graph=made.captured)
    if not pruned:
        return timing, 1.0
    counted = runner(counts=True)
    counted.run(2)  # of the first one the coverage is still 1
    counted.pages_read.zero_()
    counted.pages_dense.zero_()
    counted.run(1)
    return timing, int(counted.pages_read) / int(counted.pages_dense)


@torch.no_grad()
def _prompt(place: Place, decoder: Decoder, shot: Shot) -> tuple[Timing, float]:
    shape = decoder.weights.shape
    cache = empty_cache(place, shape, 1, shot.prompt, decoder.weights.dtype)
    tokens = torch.randint(0, shape.vocabulary, (shot.prompt,), device=place.device)
    decoder.prefill(tokens, cache, 0)
    timed = 3 if place.dry else TIMED
    timing = time_steps(lambda: decoder.prefill(tokens, cache, 0), timed, place, graph=False)
    return timing, 1.0


def _profile(
    place: Place, shape: DecoderShape, dtype: torch.dtype, points: list[Point], room: int
) -> Profile:
    fitted = fit(points, np.random.default_rng(0))
    token = shape.kv_bytes_per_token(dtype.itemsize)
    limits = EngineLimits(
        max_seqs=max(int(point.n_decode) for point in points),
        token_budget=max(int(point.prompt_tokens) for point in points),
        n_pages=max(1, int(0.9 * room / (token * PAGE))),
        page_tokens=PAGE,
        max_context=max(int(point.kv_longest) for point in points),
    )
    return Profile(
        device=place.name(),
        model=f"{shape.name} shape, random weights",
        backend=f"{place.kernels} kernels" + (", CUDA graphs" if place.cuda else ""),
        dtype=str(dtype).removeprefix("torch."),
        commit=place.commit,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=package_versions(*LIBRARIES),
        ranges=ranges_of(points),
        fit_error=fitted.fit_error,
        step_law=fitted.law.to_json(),
        limits=limits.to_json(),
        limits_estimated=True,
        kv_bytes_per_token=token,
        source="python -m reports.gpu --stages calibrate; decode steps by graph replay, prompts "
        "whole and alone; mixed steps were not timed; spread: middle 80 % of the repeats",
    )
