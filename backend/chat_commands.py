"""The chat command: a conversation with the live model, on a terminal or through a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands import (
    DeviceName,
    DtypeName,
    Model,
    Seed,
    cuts,
    interruptible,
    served,
    show,
)
from traces.console import guarded, note

if TYPE_CHECKING:
    from backend.chat import Conversation
    from backend.params import Output

app = typer.Typer(no_args_is_help=True)
COMMANDS = "/exit ends, /reset forgets the conversation"


@app.command()
@guarded
def chat(
    preset: Annotated[str, typer.Option(help="Control preset.")] = "full",
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of one reply at most.")] = 512,
    temperature: Annotated[float, typer.Option(help="User's T; 0 is greedy.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Entropy set-point H*.")] = 1.0,
    one_sided: Annotated[bool, typer.Option(help="Never raise T above the user's.")] = False,
    stop: Annotated[list[str] | None, typer.Option(help="Text to stop before; repeatable.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the top mass p.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Cut below this share of the top p.")] = None,
    model: Model = None,
    device: DeviceName = "cpu",
    dtype: DtypeName = None,
    seed: Seed = 0,
) -> None:
    """Talk to the live model: a line is a turn; /exit or the end of the input ends."""
    from backend.arguments import text as utf8
    from backend.params import SamplingParams
    from controllers.presets import get_preset

    if system is not None:
        utf8("system", system)
    stages = cuts(top_k=top_k, top_p=top_p, min_p=min_p, top_n_sigma=None)
    chosen = replace(get_preset(preset), stages=stages)
    params = SamplingParams(
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        stop=tuple(stop or ()),
        target_nats=target_nats,
        one_sided=one_sided,
    )
    from backend.chat import Conversation  # slow: bad input was refused above
    from backend.llm import LLM

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a bad line is refused, not all of them
    with (
        interruptible(),
        LLM(model, chosen, max_seqs=1, device=device, dtype=dtype) as llm,
        served(),
    ):
        note(f"{llm.loaded.name} under {preset}: {COMMANDS}")
        conversation = Conversation(llm, params, system=system)
        for line in _lines():
            if line == "/exit":
                break
            if line == "/reset":
                conversation.reset()
            elif line.startswith("/"):
                note(f"unknown command {line.split()[0]}: {COMMANDS}")
            elif line:
                _turn(conversation, line)


def _lines() -> Iterator[str]:
    """Yield the user's lines, without outer blanks, until the input ends or Ctrl-C at a prompt."""
    invitation = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(invitation)
        except (EOFError, KeyboardInterrupt):
            return
        yield line.strip()


def _turn(conversation: Conversation, line: str) -> None:
    """Print one reply as it comes; Ctrl-C ends it and keeps what came."""
    try:
        stream, dropped = conversation.ask(line)
    except ValueError as error:  # too long, or no messages this model's format takes
        note(f"error: {error}")
        return
    if dropped:
        note(f"[the oldest {dropped} messages no longer fit and are forgotten]")
    pieces: list[str] = []
    try:
        with stream:
            for delta in stream:
                pieces.append(delta.text)
                show(delta.text)
    except KeyboardInterrupt:
        pass
    show("\n")
    conversation.answered("".join(pieces))
    note("[stopped]" if stream.output is None else _summary(stream.output))


def _summary(output: Output) -> str:
    """Return how a reply went: its end, length, mean H, T, coverage, speed and cache hits."""
    metrics = output.metrics
    parts = [output.finish_reason, f"{len(output.token_ids)} tokens"]
    if metrics.entropy_nats is not None:
        parts += [
            f"H {metrics.entropy_nats:.2f} nats",
            f"T {metrics.temperature:.2f}",
            f"coverage {metrics.coverage:.3f}",
            f"first token after {metrics.ttft_s:.2f} s",
        ]
    if metrics.tpot_s:
        parts.append(f"{1.0 / metrics.tpot_s:.1f} tokens/s")
    parts.append(f"{metrics.prefix_hit_tokens} of {output.prompt_tokens} prompt tokens cached")
    return f"[{', '.join(parts)}]"
