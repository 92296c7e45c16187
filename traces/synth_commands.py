"""Commands that make arrival files: ``synth`` from a process, ``servegen`` from published fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from traces.console import guarded
from traces.import_commands import tell

if TYPE_CHECKING:
    from traces.processes import Family, Rate

app = typer.Typer()
Out = Annotated[Path, typer.Option(help="File to write: .csv or .jsonl, and .gz if wanted.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Shape = Literal["constant", "diurnal", "spike"]


@app.command()
@guarded
def synth(
    out: Out,
    rate: Annotated[float, typer.Option(help="Mean (constant, diurnal) or base requests/s.")],
    n: Annotated[int, typer.Option(min=1, help="Requests.")] = 1000,
    process: Annotated[str, typer.Option(help="exponential, gamma or weibull gaps.")] = (
        "exponential"
    ),
    cv: Annotated[float, typer.Option(help="Standard deviation of gaps over their mean.")] = 1.0,
    shape: Annotated[str, typer.Option(help="Rate in time: constant, diurnal, spike.")] = (
        "constant"
    ),
    swing: Annotated[float, typer.Option(help="diurnal: (peak - mean) / mean.")] = 0.5,
    period_s: Annotated[float, typer.Option(help="diurnal: length of a day, s.")] = 86_400.0,
    peak: Annotated[float, typer.Option(help="spike: top, times the base rate.")] = 5.0,
    at_s: Annotated[float, typer.Option(help="spike: where its top is, s.")] = 60.0,
    width_s: Annotated[float, typer.Option(help="spike: how wide it is, s.")] = 20.0,
    lengths: Annotated[Path | None, typer.Option(help="Draw length pairs of this file.")] = None,
    prompt_tokens: Annotated[float, typer.Option(help="Mean prompt, without --lengths.")] = 512.0,
    output_tokens: Annotated[float, typer.Option(help="Mean output, without --lengths.")] = 128.0,
    length_cv: Annotated[float, typer.Option(help="Their spread over their mean.")] = 1.0,
    prefixes: Annotated[int, typer.Option(min=0, help="Texts that prompts begin with.")] = 0,
    prefix_tokens: Annotated[int, typer.Option(min=1, help="Their length.")] = 512,
    tenant: Annotated[str | None, typer.Option(help="Whose requests these are.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw arrivals from a renewal process under a rate that may change in time.

    With --prefixes every prompt begins with one of so many texts, the i-th as popular as 1/i, and
    is that much longer. Tenants of different habits: draw each, then `trace mix`.
    """
    import numpy as np

    from traces.arrivals import Labels
    from traces.arrivals_file import check_target, write_arrivals
    from traces.import_files import read_lengths
    from traces.lengths import Lognormal, resampled, with_prefixes
    from traces.processes import Renewal, arrivals
    from traces.provenance import provenance

    check_target(out)

    rng = np.random.default_rng(seed)
    gaps = Renewal(family=cast("Family", process), cv=cv)
    made = arrivals(gaps, _rate(shape, rate, n, swing, period_s, peak, at_s, width_s), n, rng)
    if lengths is not None:
        prompts, outputs = resampled(read_lengths(lengths), n, rng)
    else:
        prompts = Lognormal(mean=prompt_tokens, cv=length_cv).draw(n, rng)
        outputs = Lognormal(mean=output_tokens, cv=length_cv).draw(n, rng)
    made = replace(made, prompt_tokens=prompts, output_tokens=outputs)
    made = with_prefixes(made, prefixes, prefix_tokens, rng) if prefixes else made
    made = made if tenant is None else replace(made, tenants=Labels.one(tenant, n))
    write_arrivals(out, made, made=provenance("entropic-arrivals", seed=seed))
    config = {"process": process, "cv": cv, "rate_per_s": rate, "shape": shape, "requests": n}
    tell("trace synth", out, made, seed, config, json)


@app.command()
@guarded
def servegen(
    folder: Annotated[Path, typer.Argument(help="Folder of the ServeGen tables.")],
    out: Out,
    model: Annotated[str, typer.Option(help="m-large, m-mid, m-small, deepseek-r1.")] = "m-small",
    start_s: Annotated[float, typer.Option(help="Where in the fortnight to begin, s.")] = 0.0,
    duration_s: Annotated[float, typer.Option(help="Seconds to draw.")] = 3600.0,
    share: Annotated[float, typer.Option(help="Part of every client's rate, (0, 1].")] = 0.01,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw arrivals from ServeGen's per-client fits: samples of the fits, not recorded requests."""
    import numpy as np

    from traces.arrivals_file import check_target, write_arrivals
    from traces.provenance import provenance
    from traces.servegen import draw

    check_target(out)
    rng = np.random.default_rng(seed)
    made = draw(folder, model, start_s=start_s, duration_s=duration_s, share=share, rng=rng)
    write_arrivals(out, made, made=provenance("entropic-arrivals", seed=seed))
    config = {"model": model, "start_s": start_s, "duration_s": duration_s, "share": share}
    tell("trace servegen", out, made, seed, config, json)


def _rate(
    shape: str,
    rate: float,
    n: int,
    swing: float,
    period_s: float,
    peak: float,
    at_s: float,
    width_s: float,
) -> Rate:
    from controllers.core import require
    from traces.processes import constant, diurnal, spike

    require(0.0 < rate < float("inf"), "rate must be finite and > 0", rate=rate)
    match shape:
        case "constant":
            return constant(rate)
        case "diurnal":  # as many days as the requests last, and one more
            return diurnal(rate, swing=swing, days=n / rate / period_s + 1.0, period_s=period_s)
        case "spike":
            return spike(rate, peak=peak, at_s=at_s, width_s=width_s)
        case _:
            raise ValueError(f"shape must be constant, diurnal or spike; got {shape!r}")
