"""The commands of the evaluation: what control costs in quality, and which pruning costs least."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from traces.console import emit_json, guarded, note, progress

app = typer.Typer()
OUT = Path("reports") / "out"
QUALITY_TASKS = "qmsum,book,topics"

Tasks = Annotated[
    str,
    typer.Option(
        help="Comma-separated: needle, multi_needle, kv, lines, topics, qmsum, book, gsm8k, ifeval."
    ),
]
Context = Annotated[int, typer.Option(min=1, help="Tokens of a prompt, at most.")]
Data = Annotated[Path | None, typer.Option(help="Folder of public prompt sets.")]
Model = Annotated[str | None, typer.Option(help="Folder or hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("eval")
@guarded
def evaluate(
    out: Annotated[
        Path, typer.Option(help="Rows to write (JSON lines); a run goes on from it.")
    ] = (OUT / "eval.jsonl"),
    preset: Annotated[str, typer.Option(help="Control preset, set beside baseline.")] = "attention",
    tasks: Tasks = "needle,kv",
    context: Context = 4096,
    n: Annotated[int, typer.Option(min=1, help="Examples per task.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Replies per example and preset.")] = 3,
    temperature: Annotated[float, typer.Option(min=0.0, help="User's T; 0 is greedy.")] = 0.8,
    target_nats: Annotated[float, typer.Option(help="Entropy set-point H*.")] = 1.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a reply; default by task.")
    ] = None,
    forced_tokens: Annotated[int, typer.Option(min=2, help="Tokens of a forced text.")] = 48,
    free: Annotated[bool, typer.Option(help="Also generate freely.")] = True,
    data: Data = None,
    model: Model = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of examples.")] = 0,
    json: Json = False,
) -> None:
    """Measure what a preset costs in quality: distance to dense, task scores, repetition."""
    from backend.models import load
    from controllers.presets import get_preset
    from reports.evaluation.choose import choose_examples, configuration, prices
    from reports.evaluation.rows import RowFile
    from reports.evaluation.run import BASELINE, ForcedPlan, FreePlan, run_forced, run_free
    from reports.evaluation.settings import of_preset
    from reports.evaluation.summary import forced_summary, free_summary, paired_scores
    from reports.evaluation.tasks import parse_tasks
    from reports.evaluation.texts import forced_text, free_text

    chosen, names = get_preset(preset), parse_tasks(tasks)
    setting = of_preset(chosen)
    plan = FreePlan(preset=chosen, seeds=seeds, temperature=temperature, target_nats=target_nats)
    forced = ForcedPlan(settings=(setting,), max_tokens=forced_tokens, temperature=temperature,
                        seed=seed)  # fmt: skip
    loaded, folder = load(model), _folder(data)
    examples = choose_examples(
        loaded,
        names,
        n=n,
        seed=seed,
        context=context,
        data=folder,
        forced_tokens=forced_tokens,
        max_tokens=max_tokens if free else 1,
    )
    config = {"preset": preset, "setting": setting.to_json(), "tasks": list(names)}
    config |= {"context": context, "n": n, "seeds": seeds, "temperature": temperature}
    config |= {"target_nats": target_nats, "forced_tokens": forced_tokens, "seed": seed}
    config |= {"max_tokens": max_tokens, "free": free}
    file = RowFile(out, configuration(loaded, examples, config))
    with progress("forced") as update:
        run_forced(file, loaded, examples, forced, update)
    if free:
        with progress("generating") as update:
            run_free(file, loaded, examples, plan, update)
    rows = list(file.ordered())
    scored = [row for row in rows if row["kind"] == "forced"]
    entries = forced_summary(scored, prices(loaded, [setting]))
    replies = [row for row in rows if row["kind"] == "free"]
    said, pairs = free_summary(replies), paired_scores(replies, BASELINE, preset)
    _note_size(rows)
    if json:
        metrics = {"forced": entries, "free": said, "scores": pairs}
        emit_json("eval", seed=seed, config=config, metrics=metrics)
        return
    sys.stdout.write(forced_text(entries) if entries else "nothing was forced\n")
    if said:
        sys.stdout.write("\n" + free_text(said, pairs))


@app.command()
@guarded
def quality(
    out: Annotated[Path, typer.Option(help="JSON to write.")] = OUT / "quality.json",
    rows: Annotated[Path, typer.Option(help="Rows (JSON lines); a run goes on from it.")] = (
        OUT / "quality.jsonl"
    ),
    tasks: Tasks = QUALITY_TASKS,
    context: Context = 3500,
    n: Annotated[int, typer.Option(min=1, help="Documents per task.")] = 7,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens forced per text.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="T of the forced text.")] = 0.8,
    shortest: Annotated[
        int, typer.Option(min=1, help="Leave out documents with fewer prompt tokens.")
    ] = 1,
    figure: Annotated[Path | None, typer.Option(help="PNG to draw.")] = OUT / "quality.png",
    data: Data = None,
    model: Model = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Json = False,
) -> None:
    """Compare page scores and coverages by KL to dense and KV bytes, on the same forced tokens."""
    from backend.models import load
    from controllers.core import require
    from reports.evaluation.choose import choose_examples, configuration, prices
    from reports.evaluation.rows import RowFile
    from reports.evaluation.run import ForcedPlan, run_forced
    from reports.evaluation.settings import sweep
    from reports.evaluation.summary import forced_summary, meets_bar
    from reports.evaluation.tasks import parse_tasks
    from reports.evaluation.texts import bar_text, forced_text
    from reports.figures.quality import quality as draw
    from reports.measured import header, write_document
    from reports.style import save

    names, settings = parse_tasks(tasks), sweep()
    loaded, folder = load(model), _folder(data)
    examples = choose_examples(
        loaded,
        names,
        n=n,
        seed=seed,
        context=context,
        data=folder,
        forced_tokens=tokens,
        max_tokens=1,
    )
    config = {"settings": [s.to_json() for s in settings], "tasks": list(names), "n": n}
    config |= {"context": context, "tokens": tokens, "temperature": temperature, "seed": seed}
    file = RowFile(rows, configuration(loaded, examples, config))
    plan = ForcedPlan(settings=settings, max_tokens=tokens, temperature=temperature, seed=seed)
    with progress("forced") as update:
        run_forced(file, loaded, examples, plan, update)
    scored = list(file.ordered())
    found = [row for row in scored if row["prompt_tokens"] >= shortest]
    require(bool(found), "shortest leaves no document", shortest=shortest)
    if len(found) < len(scored):
        left = len({row["document"] for row in scored} - {row["document"] for row in found})
        note(f"{left} documents left out: prompts under {shortest:,} tokens")
    entries = forced_summary(found, prices(loaded, settings))
    for entry in entries:
        entry["bar"] = meets_bar(entry)
    _note_size(found)
    document = header(loaded) | {"config": config | {"shortest": shortest}, "entries": entries}
    write_document(out, document)
    note(f"wrote {out}")
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        note(f"wrote {save(draw(document), figure)}")
    if json:
        emit_json("quality", seed=seed, config=config, rows=entries)
    else:
        sys.stdout.write(forced_text(entries) + "\n" + bar_text(entries))


def _folder(data: Path | None) -> Path | None:
    from backend.setup import data_folder

    folder = data or data_folder()
    if folder is None:
        note("no folder of public prompt sets is given: examples are made up")
    return folder


def _note_size(rows: list[dict[str, Any]]) -> None:
    documents = len({row["document"] for row in rows})
    if documents < 2:
        note(f"n is too small for intervals: {documents} document; they need 2, better 10 or more")
    elif documents < 10:
        note(f"few documents: {documents}; intervals are wide and rough under 10")
