"""Commands that run the live model: generate, record."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from controllers.samplers import Sampler
from traces.console import (
    FAILED,
    INTERRUPTED,
    commit,
    emit_json,
    guarded,
    note,
    package_versions,
    progress,
)

LIBRARIES = ("torch", "transformers", "numpy", "entropic-time")
HERE = Path(__file__).parent
app = typer.Typer(no_args_is_help=True)

Model = Annotated[str | None, typer.Option(help="Folder or hub id; default SmolLM2-135M-Instruct.")]
DeviceName = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
DtypeName = Annotated[
    str | None,
    typer.Option("--dtype", help="Of weights and KV; default float32 on cpu, bfloat16 on CUDA."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
@guarded
def generate(
    prompt: Annotated[list[str], typer.Argument(help="One or more user turns.")],
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    max_tokens: Annotated[int, typer.Option(help="Tokens of one reply at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="User's T; 0 is greedy.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Entropy set-point H*.")] = 1.0,
    one_sided: Annotated[bool, typer.Option(help="Never raise T above the user's.")] = False,
    min_coverage: Annotated[float, typer.Option(help="Keep this attention mass; 1 is dense.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text to stop before; repeatable.")] = None,
    stop_token_id: Annotated[list[int] | None, typer.Option(help="Token to stop at.")] = None,
    ignore_stop: Annotated[bool, typer.Option(help="Go on past the model's stop tokens.")] = False,
    stream: Annotated[bool, typer.Option(help="Print the text as it comes.")] = False,
    shadow: Annotated[bool, typer.Option(help="Log the preset's commands, apply none.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the top mass p.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Cut below this share of the top p.")] = None,
    top_n_sigma: Annotated[float | None, typer.Option(help="Cut below n deviations.")] = None,
    pages: Annotated[int | None, typer.Option(min=1, help="KV pages in the pool.")] = None,
    page_budget: Annotated[
        int | None,
        typer.Option(help="KV pages kept while decoding, plus at most 8; default: all."),
    ] = None,
    prefix_cache: Annotated[bool, typer.Option(help="Share pages of equal beginnings.")] = True,
    model: Model = None,
    device: DeviceName = "cpu",
    dtype: DtypeName = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Generate text on the live model under a preset."""
    from backend.arguments import text as utf8
    from backend.params import SamplingParams
    from controllers.core import describe, require
    from controllers.presets import get_preset

    for index, each in enumerate(prompt):
        utf8(f"prompt {index}", each)
    require(not (stream and json), "stream and json exclude each other", stream=True, json=True)
    stages = cuts(top_k=top_k, top_p=top_p, min_p=min_p, top_n_sigma=top_n_sigma)
    chosen = replace(get_preset(preset), stages=stages, kv_budget_pages=page_budget)
    params = SamplingParams(
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        stop=tuple(stop or ()),
        stop_token_ids=tuple(stop_token_id or ()),
        ignore_stop=ignore_stop,
        target_nats=target_nats,
        one_sided=one_sided,
        min_coverage=min_coverage,
    )
    replace(params, seed=params.seed + len(prompt) - 1)  # the last prompt's seed must do too
    from backend.live import GenerateOptions, generate_texts  # slow: bad input was refused above

    options = GenerateOptions(
        shadow=shadow, pages=pages, prefix_caching=prefix_cache, device=device, dtype=dtype
    )
    asked = (prompt, chosen, params)
    if stream:
        with interruptible(once=True), served():
            rows, metrics = generate_texts(*asked, model=model, options=options, show=show)
    else:
        with interruptible(once=True), served(), progress("generating") as update:
            rows, metrics = generate_texts(*asked, model=model, options=options, progress=update)
    if json:
        config = {"preset": preset, "model": model, **asdict(params), **asdict(options)}
        config |= {"page_budget": page_budget, "stages": [describe(each) for each in stages]}
        emit_json("generate", seed=seed, config=config, rows=rows, metrics=metrics)
    else:
        for row in rows:
            sys.stdout.write("" if stream else f"{row['text']}\n")
            note(summary(row))
    failed = [row for row in rows if row["finish_reason"] not in ("stop", "length")]
    for row in failed:
        note(f"error: request {row['request_id']} failed: {row['finish_reason']}")
    if failed:
        raise typer.Exit(FAILED)


@contextmanager
def served() -> Iterator[None]:
    """Turn an error of the running engine into one line on stderr and exit code 1."""
    from backend.errors import ServingError

    try:
        yield
    except ServingError as error:
        note(f"error: {error}")
        raise typer.Exit(FAILED) from None


@contextmanager
def interruptible(*, once: bool = False) -> Iterator[None]:
    """Turn an interrupt into one line on stderr and exit code 130, as shells report it.

    With ``once`` the first is obeyed and later ones are ignored, while the engine stops.
    """
    before = signal.getsignal(signal.SIGINT)
    mine = threading.current_thread() is threading.main_thread() and before is not None

    def obey(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if once and mine:
        signal.signal(signal.SIGINT, obey)
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if once and mine and signal.getsignal(signal.SIGINT) is obey:
            signal.signal(signal.SIGINT, before)


def show(text: str) -> None:
    """Write a piece of a reply to stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def cuts(
    *,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    top_n_sigma: float | None,
) -> tuple[Sampler, ...]:
    """Return the truncations asked for, in the order they are applied, after the temperature."""
    from controllers.samplers import MinP, TopK, TopNSigma, TopP

    found: list[Sampler] = []
    if top_n_sigma is not None:
        found.append(TopNSigma(n=top_n_sigma))
    if top_k is not None:
        found.append(TopK(k=top_k))
    if top_p is not None:
        found.append(TopP(p=top_p))
    if min_p is not None:
        found.append(MinP(p_base=min_p))
    return tuple(found)


@app.command()
@guarded
def record(
    out: Annotated[Path, typer.Option(help="Trace to write (Parquet).")],
    per_class: Annotated[int, typer.Option(min=1, help="Prompts per task class.")] = 14,
    temperatures: Annotated[str, typer.Option(help="Fixed temperatures, comma-separated.")] = (
        "0.6,0.8,1.0"
    ),
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    data: Annotated[Path | None, typer.Option(help="Folder of public prompt sets.")] = None,
    max_seqs: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 16,
    model: Model = None,
    seed: Seed = 0,
) -> None:
    """Record an entropy trace from the live model; interrupted, it resumes where it stopped."""
    from backend.live import record_trace
    from backend.recording import RecordingFailed
    from backend.setup import choose_prompts, data_folder

    parsed = _temperatures(temperatures)
    prompts = choose_prompts(data or data_folder(), per_class, seed)
    command = " ".join(["entropic", *map(shlex.quote, sys.argv[1:])])
    try:
        with progress("recording") as update:
            record_trace(
                out,
                prompts,
                parsed,
                model=model,
                max_tokens=max_tokens,
                max_seqs=max_seqs,
                seed=seed,
                command=command,
                commit=commit(HERE),
                versions=package_versions(*LIBRARIES),
                progress=update,
            )
    except RecordingFailed as failure:
        note(f"error: {failure}")
        raise typer.Exit(FAILED) from None
    note(f"wrote {out}")


def summary(row: Mapping[str, Any]) -> str:
    """Return one line about a reply: how it ended, its length, mean H, T and coverage."""
    means = (
        f"mean H {row['entropy_nats']:.2f} nats, mean T {row['temperature_mean']:.2f}, "
        f"mean coverage {row['coverage']:.3f}"
        if row["tokens"]
        else "nothing sampled"
    )
    if "shadow_temperature_mean" in row:
        means += f", shadow mean T {row['shadow_temperature_mean']:.2f}"
    if "shadow_coverage_mean" in row:
        means += f", shadow mean coverage {row['shadow_coverage_mean']:.3f}"
    if row["prefix_hit_tokens"]:
        means += f", {row['prefix_hit_tokens']} of {row['prompt_tokens']} prompt tokens cached"
    return f"[{row['finish_reason']}, {row['tokens']} tokens, {means}]"


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"temperatures must be numbers separated by commas; got {text!r}"
        ) from None
