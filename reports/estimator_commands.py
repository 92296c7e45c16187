"""The command of the estimator study: what exact entropy costs, and what shortcuts cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reports.measured import header, write_document
from traces.console import emit_json, guarded, note, progress
from traces.text import table

app = typer.Typer()
OUT = Path("reports") / "out" / "estimators.json"


@app.command()
@guarded
def estimators(
    out: Annotated[Path, typer.Option(help="JSON to write.")] = OUT,
    k: Annotated[list[int] | None, typer.Option(min=1, help="Top-k sizes; repeat it.")] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens generated per prompt.")] = 64,
    per_class: Annotated[int, typer.Option(min=1, help="Prompts per task class.")] = 6,
    data: Annotated[Path | None, typer.Option(help="Folder of public prompt sets.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare entropy estimators with exact entropy on live logits: bias, decisions, cost."""
    from backend.models import load
    from backend.setup import choose_prompts, data_folder
    from controllers.calibration import fit_temperature
    from reports.studies.estimator_rows import costs, generated_rows, held_out
    from reports.studies.estimators import compare

    ks = sorted(set(k or (20, 64, 256)))
    prompts = choose_prompts(data or data_folder(), per_class, seed)
    loaded = load(model)
    with progress("scoring replies") as update:
        rows, skipped = generated_rows(
            loaded, prompts, max_tokens=max_tokens, seed=seed, progress=update
        )
    if ks[-1] > rows.vocabulary:
        raise ValueError(f"k must be <= {rows.vocabulary}, the vocabulary; got {ks[-1]}")
    note(f"comparing estimators on {len(rows.logits):,} rows")
    fitted = fit_temperature(held_out(loaded, prompts))
    document: dict[str, Any] = header(loaded) | {
        "prompts": len(prompts) - skipped,
        "prompts_too_long": skipped,
        "rows": len(rows.logits),
        "vocabulary": rows.vocabulary,
        "seed": seed,
        "estimators": compare(rows, ks, seed),
        "costs": costs(rows.logits, ks),
        "calibration": {
            "t_cal": fitted.t_cal,
            "held_out_tokens": fitted.before.tokens,
            "nll_before_nats": fitted.before.nll_nats,
            "nll_after_nats": fitted.after.nll_nats,
            "entropy_error_before_nats": fitted.before.entropy_calibration_error,
            "entropy_error_after_nats": fitted.after.entropy_calibration_error,
        },
    }
    write_document(out, document)
    note(f"wrote {out}")
    if json:
        names = ("estimators", "costs", "calibration")
        emit_json(
            "estimators",
            seed=seed,
            config={"k": ks, "max_tokens": max_tokens, "rows": document["rows"]},
            rows={name: document[name] for name in names},
        )
    else:
        sys.stdout.write(estimators_text(document))


def estimators_text(document: dict[str, Any]) -> str:
    """Return three tables: fidelity, cost, calibration."""
    head = (
        "estimator", "k", "bias, nat", "rms", "worst", "corr.", "coverage off by > .005",
        "ln T drift", "ln T bias",
    )  # fmt: skip
    rows = [
        (
            row["estimator"],
            str(row["k"]),
            _interval(row["bias_nats"]),
            f"{row['rms_nats']:.2f}",
            f"{row['worst_nats']:.2f}",
            f"{row['correlation']:.3f}",
            _interval(row["coverage_differs_share"]),
            _interval(row["ln_t_drift"]),
            _interval(row["ln_t_bias"]),
        )
        for row in document["estimators"]
    ]
    fidelity = table(head, rows)
    head = ("rows", "k", "exact H and V", "top-k estimate", "log-sum-exp alone", "exact / top-k")
    rows = [
        (
            str(row["rows"]),
            str(row["k"]),
            f"{row['exact_us_per_row']:.0f} us",
            f"{row['top_k_us_per_row']:.0f} us",
            f"{row['lse_us_per_row']:.0f} us",
            f"{row['exact_over_top_k']:.2f}",
        )
        for row in document["costs"]
    ]
    return (
        f"{document['rows']:,} rows of {document['model']}, n = {document['vocabulary']:,}, T = 1; "
        f"mean ± 95 % over {document['prompts']} prompts\n{fidelity}\n"
        f"Cost per row (CPU, median of repeats, one run)\n{table(head, rows)}\n"
        f"{calibration_line(document['calibration'])}\n"
    )


def calibration_line(fit: dict[str, Any]) -> str:
    """Return the fitted T_cal and what it changes on the held-out tokens, in one line."""
    return (
        f"T_cal = {fit['t_cal']:.3f} on {fit['held_out_tokens']:,} held-out tokens: NLL "
        f"{fit['nll_before_nats']:.3f} -> {fit['nll_after_nats']:.3f} nat, entropy-calibration "
        f"error {fit['entropy_error_before_nats']:+.3f} -> "
        f"{fit['entropy_error_after_nats']:+.1e} nat"
    )


def _interval(found: dict[str, float | None]) -> str:
    half = found["ci95"]
    return f"{found['mean']:.3f}" + ("" if half is None else f" ±{half:.3f}")
