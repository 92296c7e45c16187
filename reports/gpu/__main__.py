"""Measure and check a GPU in named stages: ``python -m reports.gpu --stages bandwidth,kernels``.

Each stage writes ``<stage>.json``, whole after every row; on a GPU it runs in a process of its own,
and one that fails, hangs or brings the card down is recorded and the others go on. Exit 0 done, 1 a
check failed or a stage broke, 2 bad input.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from reports.gpu.apart import GRACE_S, HERE, run_apart, stage_command
from reports.gpu.bandwidth import bandwidth, best_copy, ceiling
from reports.gpu.place import Place
from reports.gpu.record import DONE, FAILED, SHORT, Record, read_rows
from reports.gpu.table import CHECKS, failed_checks, table
from traces.console import BAD_INPUT, commit
from traces.console import FAILED as CHECK_FAILED

Stage = Callable[[Place, Record], None]
RESULTS = Path(__file__).parents[1] / "results"
DRY_RESULTS = Path(__file__).parents[1] / "out" / "gpu"  # never among what is committed
RECOMPILES = 256  # one per batch size and variant; torch stops at 8, with an error
LONGEST_S = 480.0
DECODE_SHARE = 0.55  # of the stage's time, before the small kernels have their turn


def correctness(place: Place, record: Record) -> None:
    """Run the checks."""
    from reports.gpu.correctness import correctness as run

    run(place, record)


def serve(place: Place, record: Record) -> None:
    """Serve a model by the engine itself."""
    from reports.gpu.serve import serve as run

    run(place, record)


def kernels(place: Place, record: Record) -> None:
    """Time the kernels against the copy bandwidth, measured anew where its stage did not run."""
    from reports.gpu.decode_kernel import decode_kernel
    from reports.gpu.row_kernels import page_kernels, row_kernels

    measured = best_copy(read_rows(record.path.parent, "bandwidth"))
    rate = measured or ceiling(place)
    record.add("ceiling", bytes_per_s=rate, measured_now=measured is None)
    decode_kernel(place.share(DECODE_SHARE), record, rate)
    page_kernels(place, record, rate)
    row_kernels(place, record, rate)


def loop(place: Place, record: Record) -> None:
    """Time whole steps."""
    from reports.gpu.loop import loop as run

    run(place, record)


def calibrate(place: Place, record: Record) -> None:
    """Fit the step law."""
    from reports.gpu.calibrate import calibrate as run

    run(place, record)


def figure(place: Place, record: Record) -> None:
    """Draw the records."""
    from reports.gpu.figure import figure as run

    run(place, record)


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "bandwidth": bandwidth,
        "correctness": correctness,
        "serve": serve,
        "kernels": kernels,
        "loop": loop,
        "calibrate": calibrate,
        "figure": figure,
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for and print the table; return the exit code."""
    asked = _parse(arguments)
    try:
        stages = _stages(asked.stages)
        place = _place(asked, stages)
        out = asked.out or _folder(place)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return BAD_INPUT
    if place.cuda and not asked.here:
        given = sys.argv[1:] if arguments is None else list(arguments)
        ended = [_apart(name, place, out, given) for name in stages]
    else:
        ended = [run_stage(name, place, out) for name in stages]
    sys.stdout.write(table(out, stages) + "\n")
    failed = [name for stage in CHECKS if stage in stages for name in failed_checks(out, stage)]
    for name in failed:
        sys.stdout.write(f"FAILED: {name}\n")
    broken = FAILED in ended or bool(failed)
    return CHECK_FAILED if broken else 0


def _apart(name: str, place: Place, out: Path, given: Sequence[str]) -> str:
    path, limit = out / f"{name}.json", place.seconds + GRACE_S
    return run_apart(stage_command(given, name), path, limit_s=limit, folder=Path.cwd())


def run_stage(name: str, base: Place, out: Path) -> str:
    """Run one stage under its own clock and return how it ended."""
    place = replace(base, began=time.monotonic())
    record, started = Record(out, name, place.describe()), time.monotonic()
    try:
        STAGES[name](place, record)
        status = SHORT if place.late else DONE
    except Exception as error:  # the stages after it still run
        record.failed(name, error)
        status = FAILED
    record.finish(status, time.monotonic() - started)
    gc.collect()
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reports.gpu", description=__doc__)
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated, in order")
    parser.add_argument("--out", type=Path, help="folder; default reports/results/<device>")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M as safetensors")
    parser.add_argument("--seconds", type=float, default=420.0, help="of a stage, at most 480")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes, on any device")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--commit", help="of the sources, where this is no checkout")
    parser.add_argument(HERE, action="store_true", help="on a GPU too, stages in this process")
    parser.add_argument("--kernels", choices=("naive", "fused"), help="default: by device")
    return parser.parse_args(arguments)


def _stages(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise ValueError(f"--stages must name some of {', '.join(STAGES)}; got {text!r}")
    return names


def _place(asked: argparse.Namespace, stages: tuple[str, ...]) -> Place:
    if not 0.0 < asked.seconds <= LONGEST_S:
        raise ValueError(f"--seconds must lie in (0, {LONGEST_S:g}]; got {asked.seconds}")
    if asked.model is not None and not (asked.model / "config.json").is_file():
        raise ValueError(f"--model must be a folder with a config.json; got {asked.model}")
    there = torch.cuda.is_available()
    if asked.device == "cuda" and not there:
        raise ValueError("--device: no CUDA device is available; got cuda")
    on_gpu = there and asked.device != "cpu"
    if not (on_gpu or asked.dry_run or stages == ("figure",)):
        raise ValueError("no CUDA device is available; --dry-run runs tiny shapes on CPU")
    if on_gpu:
        import torch._dynamo.config as settings

        settings.recompile_limit = RECOMPILES
        settings.accumulated_recompile_limit = 4 * RECOMPILES
    device = torch.device("cuda" if on_gpu else "cpu")
    kernels = asked.kernels or ("fused" if on_gpu else "naive")
    return Place(
        device=device,
        dry=asked.dry_run,
        kernels=kernels,
        commit=asked.commit or commit(Path(__file__).parent),
        model=asked.model,
        seconds=asked.seconds,
    )


def _folder(place: Place) -> Path:
    if place.dry:
        return DRY_RESULTS
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", place.name().lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
