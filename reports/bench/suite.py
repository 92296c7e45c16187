"""Each benchmark from its settings alone: check them, load what it needs, run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from backend.models import LoadedModel, load
from backend.setup import PAGE_TOKENS, free_bytes
from controllers.presets import get_preset
from reports.bench import decode as decoding
from reports.bench import overhead as control
from reports.bench import prefill as prefilling
from reports.bench import serve as serving
from reports.bench import serve_peers
from reports.bench import sparse as pruning
from reports.bench.clock import Copy, interleave
from reports.bench.decode import Grid, Note
from reports.bench.memory import GB, Sizes, require_fits
from reports.bench.ours import require_layout
from reports.bench.peers import PEERS, require_peers, stock
from reports.bench.rows import FEWEST_REPEATS, BenchError, Measure, measure, shape_of
from reports.bench.sparse import Sweep

TRANSFORMERS = decoding.TRANSFORMERS


def copy(repeats: int) -> Iterator[Measure]:
    """Measure copying (read and write counted) and reading."""
    _require_repeats(repeats)
    one = Copy()
    seconds = interleave({"copy": one, "read": one.read}, repeats)
    shape = shape_of(mib=one.read_bytes >> 20)
    for variant, moved in (("copy", one.moved_bytes), ("read", one.read_bytes)):
        rates = [moved / GB / value for value in seconds[variant]]
        yield measure("copy", variant, shape, "gb_per_s", "GB/s", rates)


def decode(model: str | None, grid: Grid, note: Note) -> Iterator[Measure]:
    """Check and run a decode grid."""
    require_peers(grid.peers)
    require_layout(grid.layout)
    _require_repeats(grid.repeats)
    loaded = load(model)
    _require_contexts(loaded, grid.contexts)
    require_fits(Sizes.of(loaded), *grid.largest, grid.peers, free=free_bytes())
    network = stock(model) if TRANSFORMERS in grid.peers else None
    yield from decoding.run(loaded, network, grid, Copy(), note)


def prefill(
    model: str | None,
    *,
    tokens: Sequence[int],
    chunks: Sequence[int],
    peers: Sequence[str],
    repeats: int,
    note: Note,
) -> Iterator[Measure]:
    """Check and run prefills."""
    require_peers(peers, prefilling.PEERS)
    _require_repeats(repeats)
    loaded = load(model)
    _require_longest(loaded, "tokens", max(tokens))
    require_fits(Sizes.of(loaded), 1, max(tokens), peers, free=free_bytes())
    network = stock(model) if TRANSFORMERS in peers else None
    yield from prefilling.run(loaded, network, tokens, chunks, repeats, Copy(), note)


def sparse(model: str | None, sweep: Sweep, note: Note) -> Iterator[Measure]:
    """Check and run a sweep over pages kept."""
    _require_repeats(sweep.repeats)
    if max(sweep.coverages) >= 1.0:
        raise BenchError(f"coverage must be < 1 here; got {max(sweep.coverages):g}")
    loaded = load(model)
    _require_contexts(loaded, sweep.contexts)
    require_fits(Sizes.of(loaded), sweep.batch, max(sweep.contexts), (), free=free_bytes())
    yield from pruning.run(loaded, sweep, Copy(), note)


def serve(
    model: str | None,
    *,
    requests: int,
    context: int,
    max_tokens: int,
    max_seqs: int,
    presets: Sequence[str],
    peers: Sequence[str],
    repeats: int,
    note: Note,
) -> Iterator[Measure]:
    """Check and run a closed batch of requests."""
    require_peers(peers, serve_peers.PEERS)
    _require_repeats(repeats)
    for name in presets:
        get_preset(name)
    loaded = load(model)
    _require_longest(loaded, "context + max_tokens", context + max_tokens)
    theirs = (TRANSFORMERS,) if peers else ()
    require_fits(Sizes.of(loaded), requests, context + max_tokens, theirs, free=free_bytes())
    request_load = serving.closed_load(loaded, requests, context, max_tokens, max_seqs)
    servers = _peer_servers(model, peers)
    yield from serving.run(loaded, request_load, presets, servers, repeats, note)


def overhead(
    model: str | None,
    *,
    preset: str,
    batch: int,
    context: int,
    steps: int,
    repeats: int,
    note: Note,
) -> Iterator[Measure]:
    """Check and run the breakdown of a controlled step."""
    _require_repeats(repeats)
    get_preset(preset)
    loaded = load(model)
    _require_longest(loaded, "context + steps", context + steps)
    require_fits(Sizes.of(loaded), batch, context + 2 * steps, (), free=free_bytes())
    yield from control.run(loaded, preset, batch, context, steps, repeats, note)


def everything(
    model: str | None, note: Note, *, quick: bool
) -> Iterator[tuple[str, Iterator[Measure]]]:
    """Yield every benchmark by name, not yet run; ``quick`` ones take a minute or two together."""
    peers = PEERS
    grid = Grid(
        batches=(1, 4) if quick else (1, 4, 16),
        contexts=(512,) if quick else (512, 2048),
        coverages=(1.0, 0.95),
        peers=peers,
        repeats=FEWEST_REPEATS if quick else 7,
    )
    sweep = Sweep(
        batch=2 if quick else 4,
        contexts=(128, 512, 1024) if quick else (128, 256, 512, 1024, 2048, 4096, 8176),
        coverages=(0.99, 0.95, 0.8) if quick else (0.99, 0.98, 0.95, 0.9, 0.8),
        repeats=grid.repeats,
    )
    yield "copy", copy(grid.repeats)
    yield "decode", decode(model, grid, note)
    yield (
        "prefill",
        prefill(
            model,
            tokens=(512,) if quick else (512, 2048, 4096),
            chunks=(256,) if quick else (512,),
            peers=prefilling.PEERS,
            repeats=grid.repeats,
            note=note,
        ),
    )
    yield "sparse", sparse(model, sweep, note)
    yield (
        "overhead",
        overhead(
            model,
            preset="full",
            batch=max(grid.batches),
            context=max(grid.contexts),
            steps=10 if quick else 30,
            repeats=FEWEST_REPEATS,
            note=note,
        ),
    )
    yield (
        "serve",
        serve(
            model,
            requests=4 if quick else 12,
            context=256 if quick else 1024,
            max_tokens=8 if quick else 64,
            max_seqs=4 if quick else 8,
            presets=("baseline", "full"),
            peers=serve_peers.PEERS,
            repeats=FEWEST_REPEATS,
            note=note,
        ),
    )


def _peer_servers(model: str | None, peers: Sequence[str]) -> Mapping[str, serving.Server]:
    if not peers:
        return {}
    network = stock(model)
    ways = {TRANSFORMERS: serve_peers.padded, "continuous": serve_peers.continuous}
    return {name: partial(ways[name], network) for name in peers}


def _require_repeats(repeats: int) -> None:
    if repeats < FEWEST_REPEATS:
        raise BenchError(f"repeats must be >= {FEWEST_REPEATS}; got {repeats}")


def _require_contexts(loaded: LoadedModel, contexts: Sequence[int]) -> None:
    for context in contexts:
        if context % PAGE_TOKENS:
            raise BenchError(f"context must be a multiple of {PAGE_TOKENS} tokens; got {context}")
    _require_longest(loaded, "context + 1", max(contexts) + 1)


def _require_longest(loaded: LoadedModel, name: str, tokens: int) -> None:
    if tokens > loaded.max_context:
        raise BenchError(f"{name} must be <= the model's {loaded.max_context}; got {tokens}")
