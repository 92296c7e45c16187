"""What control costs of a decode step, several times over: ``backend.overhead`` with a spread."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from backend.models import LoadedModel
from backend.overhead import control_overhead
from reports.bench.decode import Note
from reports.bench.rows import Measure, measure, shape_of

NAME = "overhead"
TOTAL = "control"  # the sum of its parts, the number that has a bar


def run(
    loaded: LoadedModel,
    preset: str,
    batch: int,
    context: int,
    steps: int,
    repeats: int,
    note: Note,
) -> Iterator[Measure]:
    """Break a step down ``repeats`` times; each takes the least of ``steps`` steps."""
    turns = []
    for turn in range(repeats):
        note(f"overhead: turn {turn + 1} of {repeats}")
        found = control_overhead(loaded, preset=preset, batch=batch, context=context, steps=steps)
        turns.append(found)
    shape = shape_of(preset=preset, batch=batch, context=context, steps=steps)
    for column in zip(*turns, strict=True):
        part = column[0].part
        inside = column[0].control and part != TOTAL
        made = partial(measure, NAME, f"{TOTAL}: {part}" if inside else part, shape)
        yield made("part_s", "s", [one.seconds for one in column])
        yield made("share_of_step", "1", [one.share for one in column])
