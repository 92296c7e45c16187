"""Commands that make arrival files: ``synth`` from a process, ``servegen`` from published fits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from traces.console import emit_json, guarded, note

if TYPE_CHECKING:
    from traces.arrivals import Arrivals
    from traces.processes import Family, Rate

app = typer.Typer()
Out = Annotated[Path, typer.Option(help="CSV to write: arrived_at (s), prompt and output tokens.")]
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
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw arrivals from a renewal process under a rate that may change in time."""
    import numpy as np

    from traces.arrivals import read_arrivals
    from traces.lengths import Lognormal, resampled
    from traces.processes import Renewal, arrivals

    rng = np.random.default_rng(seed)
    gaps = Renewal(family=cast("Family", process), cv=cv)
    made = arrivals(gaps, _rate(shape, rate, n, swing, period_s, peak, at_s, width_s), n, rng)
    if lengths is not None:
        prompts, outputs = resampled(read_arrivals(lengths), n, rng)
    else:
        prompts = Lognormal(mean=prompt_tokens, cv=length_cv).draw(n, rng)
        outputs = Lognormal(mean=output_tokens, cv=length_cv).draw(n, rng)
    _write(out, made, prompts, outputs)
    config = {"process": process, "cv": cv, "rate_per_s": rate, "shape": shape, "requests": n}
    _tell("trace synth", out, seed, config, made, prompts, outputs, json)


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

    from traces.servegen import draw

    rng = np.random.default_rng(seed)
    made = draw(folder, model, start_s=start_s, duration_s=duration_s, share=share, rng=rng)
    assert made.prompt_tokens is not None
    assert made.output_tokens is not None
    _write(out, made, made.prompt_tokens, made.output_tokens)
    config = {"model": model, "start_s": start_s, "duration_s": duration_s, "share": share}
    _tell("trace servegen", out, seed, config, made, made.prompt_tokens, made.output_tokens, json)


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


def _write(out: Path, made: Arrivals, prompts: Any, outputs: Any) -> None:
    from traces.atomic import atomic_path

    rows = zip(made.times_s.tolist(), prompts.tolist(), outputs.tolist(), strict=True)
    with atomic_path(out) as part, part.open("w", encoding="utf-8") as file:
        file.write("arrived_at,num_prefill_tokens,num_decode_tokens\n")
        file.writelines(f"{time:.9f},{prompt},{output}\n" for time, prompt, output in rows)
    note(f"wrote {out}: {made.source}")


def _tell(
    command: str,
    out: Path,
    seed: int,
    config: dict[str, Any],
    made: Arrivals,
    prompts: Any,
    outputs: Any,
    json: bool,  # noqa: FBT001 - the command's own flag
) -> None:
    import numpy as np

    gaps = np.diff(made.times_s)
    metrics = {
        "requests": len(made),
        "span_s": float(made.times_s[-1]),
        "rate_per_s": None if np.isnan(made.rate_per_s) else made.rate_per_s,
        "gap_cv": float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else None,
        "prompt_tokens_mean": float(prompts.mean()),
        "output_tokens_mean": float(outputs.mean()),
    }
    if json:
        emit_json(command, seed=seed, config=config | {"out": out.name}, metrics=metrics)
    else:
        sys.stdout.writelines(f"{name:20} {value}\n" for name, value in metrics.items())
