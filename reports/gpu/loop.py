"""Stage ``loop``: whole decode steps of an 8B shape and of SmolLM2, with and without control.

The weights of the 8B shape are random and so are the keys in its cache: its rows say what a step
costs at a share of pages kept, not which share a text needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from backend.gpu.cache import DeviceCache
from backend.gpu.decoder import Decoder
from backend.gpu.runner import WARMUP, DecodeRunner
from backend.gpu.shapes import SHAPES, DecoderShape
from backend.gpu.weights import random_weights
from reports.gpu.place import Place
from reports.gpu.quality import quality
from reports.gpu.record import Record
from reports.gpu.runners import (
    batch_of,
    compiled_decoder,
    controlled,
    empty_cache,
    make_runner,
)
from reports.gpu.timing import time_steps

MODELS, DRY_MODELS = ("llama-3-8b", "smollm2-135m"), ("tiny",)
POINTS = (  # context and batch, most telling first
    (8192, 1),
    (32768, 1),
    (131072, 1),
    (32768, 8),
    (8192, 8),
    (8192, 32),
    (65536, 1),
    (65536, 4),
    (131072, 2),
)
TIMED = 30  # steps
TURNS = (0.7, 0.9)  # of the stage's time, when each model's points end; the rest is quality's
BUDGET_TOKENS = 4096  # what the evict lever leaves of a context


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the same step."""

    name: str
    preset: str | None = None  # None: no law, no statistics
    coverage: float | None = None  # held; None: laws run and every page is read
    compiled_laws: bool = False
    masses: bool = False

    @property
    def prunes(self) -> bool:
        """Whether pages are scored and selected."""
        return self.coverage is not None


VARIANTS = (
    Variant(name="dense"),
    Variant(name="control", preset="full"),
    Variant(name="control, laws compiled", preset="full", compiled_laws=True),
    *(Variant(name=f"attention {c:g}", preset="attention", coverage=c) for c in (0.5, 0.25, 0.1)),
    *(Variant(name=f"full {c:g}", preset="full", coverage=c) for c in (0.99, 0.25)),
    Variant(name="dense, masses measured", masses=True),
    Variant(name="dense again"),  # what the card drifted by, under everything above
)


def loop(place: Place, record: Record) -> None:
    """Time every variant at every context and batch that fits, then SmolLM2's quality."""
    names = DRY_MODELS if place.dry else MODELS
    for number, name in enumerate(names):
        turn = place.share(TURNS[number] if len(names) > 1 else 1.0)
        shape = SHAPES[name]
        dtype = torch.bfloat16 if place.cuda else torch.float32
        weights = random_weights(shape, dtype=dtype, device=place.device)
        decoder = compiled_decoder(place, record, weights)
        for context, batch in _points(place, shape):
            if turn.late:
                record.add("skipped", model=name, context=context, batch=batch)
                continue
            try:
                _point(turn, record, decoder, context, batch)
            except Exception as error:  # out of memory, or a compiler's own type
                record.failed("step", error, model=name, context=context, batch=batch)
        _overheads(record, name)
        del decoder, weights
        if place.cuda:
            torch._dynamo.reset()  # its caches would hold the weights
    if place.late:
        record.add("skipped", part="quality")
    else:
        quality(place, record)


def _points(place: Place, shape: DecoderShape) -> Iterator[tuple[int, int]]:
    if place.dry:
        yield from ((32, 2), (96, 2))
        return
    most = {"smollm2-135m": 8192}.get(shape.name, 1 << 20)  # what the model was made for
    room = place.free_bytes()
    sizes = {"layers": shape.layers, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim}
    for context, batch in POINTS:
        needed = DeviceCache.bytes_of(**sizes, rows=batch, capacity=context, element=2)
        if context <= most and needed <= room:
            yield context, batch


def _point(place: Place, record: Record, decoder: Decoder, context: int, batch: int) -> None:
    # A point's last step ends at its context: pages beyond a power of two cost selection twice.
    shape, steps = decoder.weights.shape, (4 if place.dry else TIMED) + 2 * WARMUP + 2
    cache = empty_cache(place, shape, batch, context, decoder.weights.dtype)
    cache.fill()
    common = {"model": shape.name, "context": context, "batch": batch}
    for variant in VARIANTS:
        if place.late and variant.name != "dense":
            record.add("skipped", variant=variant.name, **common)
            continue
        try:
            _variant(place, record, variant, decoder, cache, common, steps)
        except Exception as error:  # a kernel compiler raises types of its own
            record.failed("step", error, variant=variant.name, **common)
    held = 32 if place.dry else BUDGET_TOKENS
    if (
        context > held and not place.late
    ):  # the evict lever: fewer pages held, their masses measured
        del cache
        cache = empty_cache(place, shape, batch, held, decoder.weights.dtype)
        cache.fill()
        evict = Variant(name=f"evict to {held}", masses=True)
        _variant(place, record, evict, decoder, cache, common, steps, held=held)


def _variant(
    place: Place,
    record: Record,
    variant: Variant,
    decoder: Decoder,
    cache: DeviceCache,
    common: dict[str, Any],
    steps: int,
    held: int | None = None,
) -> None:
    def runner(*, counts: bool) -> DecodeRunner:
        return make_runner(
            place,
            batch_of(common["batch"], (held or common["context"]) - steps, steps),
            None if variant.preset is None else controlled(variant.preset, variant.coverage),
            capacity=cache.capacity,
            steps=steps,
            decoder=decoder,
            cache=cache,
            selects=variant.prunes,
            compiled_laws=variant.compiled_laws and place.cuda,
            masses=variant.masses,
            counts=counts,
        )

    made = _warmed(place, record, runner, variant.name, common)
    timed = 4 if place.dry else TIMED
    timing = time_steps(lambda: made.run(1, graph=made.captured), timed, place, graph=made.captured)
    kept = 1.0
    if variant.prunes:
        counted = runner(counts=True)
        counted.run(1)  # its coverage is still 1: a law's command is one step late
        counted.pages_read.zero_()
        counted.pages_dense.zero_()
        counted.run(2)
        kept = int(counted.pages_read) / int(counted.pages_dense)
    record.add(
        "step",
        variant=variant.name,
        **common,
        coverage=variant.coverage,
        kept_share=kept,
        tokens_per_s=common["batch"] / timing.median_s,
        captured=made.captured,
        **timing.fields(),
    )


def _warmed(
    place: Place,
    record: Record,
    runner: Callable[..., DecodeRunner],
    variant: str,
    common: dict[str, Any],
) -> DecodeRunner:
    """Return a runner past its slow first steps: captured, or eager where no graph can be made."""
    if place.cuda:
        try:
            made = runner(counts=False)
            made.run(WARMUP + 1, graph=True)
            return made
        except Exception as error:  # an eager row is worth more than none, and says that it is one
            record.failed("capture", error, variant=variant, **common)
            torch.cuda.synchronize()
    made = runner(counts=False)
    made.run(WARMUP + 1)
    return made


def _overheads(record: Record, model: str) -> None:
    """Add what control costs at each point, and where pruning begins to pay."""
    rows = [r for r in record.rows if r["what"] == "step" and r.get("model") == model]
    steps = {(r["context"], r["batch"], r["variant"]): r for r in rows if "median_s" in r}
    points = sorted({key[:2] for key in steps})
    for context, batch in points:
        dense = steps.get((context, batch, "dense"))
        again = steps.get((context, batch, "dense again"))
        for name in ("control", "control, laws compiled"):
            other = steps.get((context, batch, name))
            if dense is None or other is None:
                continue
            share = other["median_s"] / dense["median_s"] - 1.0
            point = {"model": model, "context": context, "batch": batch, "variant": name}
            drift = again["median_s"] / dense["median_s"] - 1.0 if again else None
            record.add("control_overhead", **point, share_of_step=share, drift=drift)
    for variant in (v.name for v in VARIANTS if v.prunes):
        for batch in sorted({batch for _, batch in points}):
            ratios = [
                (context, steps[context, batch, variant]["median_s"] / dense["median_s"])
                for context, b in points
                if b == batch
                and (context, b, variant) in steps
                and (dense := steps.get((context, b, "dense"))) is not None
            ]
            found = crossover(ratios)
            record.add("crossover", model=model, batch=batch, variant=variant, **found)


def crossover(ratios: list[tuple[int, float]]) -> dict[str, Any]:
    """Return where the time over dense passes 1, from (context, ratio) in rising context.

    Interpolated between neighbours; where the ratio never passes 1, what is known instead.
    """
    if not ratios:
        return {"tokens": None, "note": "not measured"}
    if ratios[0][1] < 1.0:
        return {"tokens": None, "note": f"pays from the shortest measured, {ratios[0][0]}"}
    for (short, above), (long, below) in itertools.pairwise(ratios):
        if above >= 1.0 > below:
            tokens = short + (long - short) * (above - 1.0) / (above - below)
            return {"tokens": round(tokens), "note": f"between {short} and {long}"}
    return {"tokens": None, "note": f"never up to {ratios[-1][0]}"}
