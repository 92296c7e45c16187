"""Stage ``correctness``: what must hold on this device before any of its timings means anything."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from controllers.selection import Pins
from reports.gpu.apart import run_group
from reports.gpu.greedy import against_transformers
from reports.gpu.law_parity import law_parity
from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.runners import batch_of, controlled, make_runner

ROOT = Path(__file__).parents[2]
TABLE_S = 200.0  # what the kernel test table may take
LEAST_TABLE_S = 30.0  # with less left it is not begun
STEPS, REPLAYED = 24, 12
Check = Callable[[Place, Record], None]


def correctness(place: Place, record: Record) -> None:
    """Run every check; one that raises is a row that failed, and the others go on."""
    for check in (replay_is_eager, coverage_one_is_dense, no_sync, law_parity, greedy, table):
        if place.late:
            record.add("skipped", part=check.__name__)
            continue
        try:
            check(place, record)
        except Exception as error:  # a check that cannot run has not passed
            record.failed(check.__name__, error, passed=False)


def replay_is_eager(place: Place, record: Record) -> None:
    """Decode the same batch eagerly and by graph replay, under ``full``; tokens must be equal."""
    runs = [_decoded(place, graph=graph) for graph in (False, place.cuda)]
    eager, replayed = (run.tokens.cpu() for run in runs)
    record.add(
        "replay_is_eager",
        passed=bool(torch.equal(eager, replayed)),
        captured=runs[1].captured,
        tokens=eager.numel(),
        differing=int((eager != replayed).sum()),
    )


def _decoded(place: Place, *, graph: bool, coverage: float | None = 0.9) -> Any:
    made = make_runner(
        place,
        batch_of(3, 200, STEPS),
        controlled("full", coverage),
        capacity=256,
        steps=STEPS,
        prompts=True,
    )
    made.run(REPLAYED, graph=graph)
    made.run(STEPS - 1 - REPLAYED, graph=graph)
    return made


def coverage_one_is_dense(place: Place, record: Record) -> None:
    """Hold page selection at coverage 1, which reads every page, against dense attention."""
    twins, heads, pages, dim = place.twins(), 4, 37, 64
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        k, v = (_normal(place, heads, pages, 16, dim).to(dtype) for _ in "kv")
        q = _normal(place, 2, heads, 4, dim).to(dtype)
        table = torch.randperm(2 * 16, device=place.device).int().view(2, 16)
        n_pages = torch.tensor([16, 11], dtype=torch.int32, device=place.device)
        tails = torch.tensor([16, 5], dtype=torch.int32, device=place.device)
        mass = torch.rand(2, heads, 16, device=place.device)
        one = torch.ones(2, device=place.device)
        chosen = twins.select_pages(mass, table, n_pages, one, Pins())
        every = (
            table[:, None].expand(-1, heads, -1),
            n_pages[:, None].expand(-1, heads),
        )
        pruned, dense = (
            twins.decode_pages(q, k, v, *lists, tails, dim**-0.5).out for lists in (chosen, every)
        )
        record.add(
            "coverage_one_is_dense", dtype=str(dtype), passed=bool(torch.equal(pruned, dense))
        )


def no_sync(place: Place, record: Record) -> None:
    """Run controlled steps with torch's sync detector set to raise."""
    if not place.cuda:
        record.add("no_sync", passed=None, note="needs a GPU")
        return
    made = make_runner(
        place, batch_of(2, 100, 8), controlled("full", 0.9), capacity=128, steps=8, prompts=True
    )
    made.run(2)
    with _sync_raises():
        made.run(5)
    record.add("no_sync", passed=True, steps=5)


@contextmanager
def _sync_raises() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def greedy(place: Place, record: Record) -> None:
    """Compare greedy tokens with transformers: SmolLM2 where its folder is given."""
    against_transformers(place, record)


def table(place: Place, record: Record) -> None:
    """Run the kernels' own tests on this device: the table of shapes, and what needs a GPU."""
    folder = ROOT / "tests" / "kernels"
    if place.dry or not folder.is_dir():
        record.add("kernel_tests", passed=None, note="not in a dry run, or without tests/")
        return
    limit = min(TABLE_S, place.left_s)
    if limit < LEAST_TABLE_S:
        record.add("kernel_tests", passed=None, note=f"{limit:.0f} s left were too few")
        return
    names = sorted(path for path in folder.glob("test_*fused.py"))
    names.append(folder / "test_gpu_kernels.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu or not gpu", "-p"]
    command += ["no:cacheprovider", "-W", "default", "-n", "8", "--dist", "worksteal"]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    log = record.path.with_name("kernel_tests.log")
    ended = run_group(
        [*command, *map(str, names)], limit_s=limit, folder=ROOT, output=log, settings=settings
    )
    said = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    record.say(said[-8000:])
    last = re.findall(r"^.*(?:passed|failed|error).*$", said, re.MULTILINE)
    done, summary = ended == "exit code 0", (last or ["no summary"])[-1]
    record.add("kernel_tests", passed=done, summary=summary, ended=ended)


def _normal(place: Place, *shape: int) -> torch.Tensor:
    return torch.randn(shape, device=place.device)
