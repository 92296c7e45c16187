"""Commands that turn files of others into ours: ``trace import``, ``trace mix``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from traces.console import emit_json, guarded, note

if TYPE_CHECKING:
    from traces.arrivals import Arrivals

app = typer.Typer()
Out = Annotated[Path, typer.Option(help="File to write: .jsonl or .csv, and .gz if wanted.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Read the first so many arrivals.")]
Sort = Annotated[bool, typer.Option("--sort", help="Sort rows that lie out of time order.")]
BlockTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of a prefix block, if not the format's.")
]


@app.command("import")
@guarded
def import_(
    file: Annotated[Path, typer.Argument(help="Arrivals, or responses with log-probabilities.")],
    out: Out,
    limit: Limit = None,
    sort: Sort = False,
    block_tokens: BlockTokens = None,
    tenant: Annotated[str | None, typer.Option(help="Whose requests these are.")] = None,
    task_class: Annotated[str | None, typer.Option(help="What these requests are for.")] = None,
    rate: Annotated[float | None, typer.Option(help="Rescale to so many requests/s.")] = None,
    spread_seed: Annotated[
        int | None, typer.Option(min=0, help="Spread arrivals of one coarse time, with this seed.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the source, for the header.")] = None,
    vocabulary: Annotated[
        int | None, typer.Option(min=2, help="Responses: tokens the model can choose from.")
    ] = None,
    processed: Annotated[
        bool, typer.Option("--processed", help="Responses: log-probabilities after temperature.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a file of others in our own form, with its source and licence."""
    from traces.vllm_logprobs import is_responses

    if is_responses(file):
        given = {"limit": limit, "sort": sort, "block-tokens": block_tokens, "tenant": tenant}
        given |= {"task-class": task_class, "rate": rate, "spread-seed": spread_seed}
        _of_no_use(given, file, "responses with log-probabilities")
        _import_intervals(file, out, licence or "", vocabulary, processed, json)
        return
    import numpy as np

    from traces.arrivals import Labels, rescaled, spread
    from traces.arrivals_file import check_target, write_arrivals
    from traces.import_files import read
    from traces.provenance import provenance

    check_target(out)
    found = read(file, limit, sort=sort, block_tokens=block_tokens)
    _of_no_use({"vocabulary": vocabulary, "processed": processed}, file, "arrivals")
    if spread_seed is not None:
        found = spread(found, np.random.default_rng(spread_seed))
    found = found if rate is None else rescaled(found, rate)
    found = found if tenant is None else replace(found, tenants=Labels.one(tenant, len(found)))
    if task_class is not None:
        found = replace(found, classes=Labels.one(task_class, len(found)))
    found = found if licence is None else replace(found, licence=licence)
    write_arrivals(out, found, made=provenance("entropic-arrivals", seed=spread_seed))
    config = {"file": file.name, "limit": limit, "sort": sort, "rate_per_s": rate}
    tell("trace import", out, found, spread_seed, config, json)


@app.command()
@guarded
def mix(
    parts: Annotated[list[str], typer.Argument(help="NAME=FILE or NAME=FILE@RATE, one a tenant.")],
    out: Out,
    limit: Limit = None,
    sort: Sort = False,
    seed: Annotated[int, typer.Option(min=0, help="Of where in its first gap each begins.")] = 0,
    json: Json = False,
) -> None:
    """Put the arrivals of several tenants on one clock, each rescaled to its own rate."""
    from traces.arrivals import first, mixed
    from traces.arrivals_file import check_target, write_arrivals
    from traces.provenance import provenance

    check_target(out)
    tenants: dict[str, Arrivals] = {}
    for part in parts:
        name, found = _part(part, sort)
        if name in tenants:
            raise ValueError(f"tenants must have names of their own; got {name!r} twice")
        tenants[name] = found
    whole = mixed(tenants, seed)
    whole = whole if limit is None else first(whole, limit)
    write_arrivals(out, whole, made=provenance("entropic-arrivals", seed=seed))
    tell("trace mix", out, whole, seed, {"parts": parts, "limit": limit}, json)


def tell(
    command: str,
    out: Path,
    made: Arrivals,
    seed: int | None,
    config: dict[str, object],
    json: bool,  # noqa: FBT001 - the command's own flag
) -> None:
    """Say what was written to ``out``."""
    from traces.arrivals_info import arrivals_report, describe_arrivals

    note(f"wrote {out}: {made.source}")
    metrics = describe_arrivals(made)
    if json:
        emit_json(command, seed=seed, config=config | {"out": out.name}, metrics=metrics)
    else:
        sys.stdout.write(arrivals_report(metrics))


def _of_no_use(given: dict[str, object], file: Path, kind: str) -> None:
    """Raise for an option that says nothing about what ``file`` holds."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"--{name} has no meaning for {kind}, which {file} holds; got {value}")


def _part(part: str, sort: bool) -> tuple[str, Arrivals]:  # noqa: FBT001 - the command's own flag
    from traces.arrivals import read_arrivals, rescaled

    name, equals, rest = part.partition("=")
    if not (name and equals and rest):
        raise ValueError(f"a tenant must be NAME=FILE or NAME=FILE@RATE; got {part!r}")
    file, at, rate = rest.rpartition("@")
    if not at:
        return name, read_arrivals(rest, sort=sort)
    try:
        per_s = float(rate)
    except ValueError:
        raise ValueError(f"the rate of a tenant must be a number; got {part!r}") from None
    return name, rescaled(read_arrivals(file, sort=sort), per_s)


def _import_intervals(
    file: Path,
    out: Path,
    licence: str,
    vocabulary: int | None,
    processed: bool,  # noqa: FBT001 - the command's own flag
    json: bool,  # noqa: FBT001 - likewise
) -> None:
    from traces.intervals import check_target, describe_intervals, intervals_report, write_intervals
    from traces.vllm_logprobs import read_responses

    if vocabulary is None:
        raise ValueError("vocabulary must be given: responses do not say how many tokens there are")
    check_target(out)
    found = read_responses(file, vocabulary=vocabulary, processed=processed, licence=licence)
    write_intervals(out, found)
    note(f"wrote {out}: entropy intervals; they cannot be simulated")
    metrics = describe_intervals(found)
    if json:
        config = {"file": file.name, "vocabulary": vocabulary, "out": out.name}
        emit_json("trace import", seed=None, config=config, metrics=metrics)
    else:
        sys.stdout.write(intervals_report(metrics))
