"""Rows of a known format as arrivals: lengths checked, times in order, blocks numbered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from traces.arrivals import Arrivals, ArrivalsError, Labels
from traces.import_formats import FORMATS, Format
from traces.import_text import Column, NumberedRow, counts
from traces.prefixes import Prefixes

MOST_S = 100 * 365.25 * 86_400.0  # a century
VIDUR = next(shape for shape in FORMATS if shape.name == "vidur")


def read_rows(
    shape: Format,
    rows: Iterable[NumberedRow],
    path: Path,
    limit: int | None,
    *,
    names: Sequence[str],
    sort: bool,
    block_tokens: int | None = None,
) -> Arrivals:
    """Return the arrivals of ``rows``, which have the columns ``names``."""
    # Failed rows are dropped later, so that only a format without them can stop reading early.
    taken = rows if shape.zero_is_failure else islice(rows, limit)
    columns = _Columns(shape, taken, path, names)
    prompts, outputs = counts(columns.one_of(shape.prompt)), counts(columns.one_of(shape.output))
    kept = _usable(columns, prompts, outputs, limit)
    time = columns.one_of(shape.time, kept)
    times_s = shape.seconds(time)
    order, notes = in_order(times_s, time, promised=shape.ordered, sort=sort)
    within_a_century(times_s, time)
    kept = kept[order]
    read = int(kept.max()) + 1 if len(kept) == limit else len(prompts)  # what follows is not ours
    return Arrivals(
        times_s=times_s[order] - times_s[order[0]],
        prompt_tokens=prompts[kept],
        output_tokens=outputs[kept],
        source=f"{shape.name}:{path.name}",
        dropped=read - len(kept),
        prefixes=columns.prefixes(kept, prompts, block_tokens),
        tenants=columns.labels(shape.tenant, kept),
        classes=columns.labels(shape.task_class, kept),
        licence=shape.licence,
        notes=(*([shape.note] if shape.note else []), *notes),
    )


def lengths_of(rows: Iterable[NumberedRow], path: Path, shape: Format = VIDUR) -> Arrivals:
    """Return the lengths of ``rows``, a second apart: there are no times."""
    columns = _Columns(shape, rows, path, (*shape.prompt, *shape.output))
    prompts, outputs = counts(columns.one_of(shape.prompt)), counts(columns.one_of(shape.output))
    kept = _usable(columns, prompts, outputs, None)
    return Arrivals(
        times_s=np.arange(len(kept), dtype=np.float64),
        prompt_tokens=prompts[kept],
        output_tokens=outputs[kept],
        source=f"{shape.name} lengths:{path.name}",
        dropped=len(prompts) - len(kept),
        notes=("the file has no times: its rows are put a second apart",),
    )


def in_order(
    times_s: np.ndarray, column: Column, *, promised: bool, sort: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the rows in time order, and a note where they were not."""
    back = np.flatnonzero(np.diff(times_s) < 0.0)
    if promised and len(back) and not sort:
        column.blame(int(back[0]) + 1, "lies before the row above, in a format in time order")
    moved = f"{len(back)} of {len(times_s)} rows lay before the row above; sorted by time"
    return np.argsort(times_s, kind="stable"), (moved,) if len(back) else ()


def within_a_century(times_s: np.ndarray, column: Column) -> None:
    """Raise where times lie further apart than any recording, and than nanoseconds can count."""
    away = times_s - times_s.min()
    if away.max() > MOST_S:
        rule = f"lies {away.max():.3g} s after the earliest; at most {MOST_S:.3g}: another unit?"
        column.blame(int(np.argmax(away)), rule)


def _usable(
    columns: _Columns, prompts: np.ndarray, outputs: np.ndarray, limit: int | None
) -> np.ndarray:
    """Return the rows with both lengths, at most ``limit``; raise where a format has no others."""
    good = np.minimum(prompts, outputs) >= 1
    if not good.all() and not columns.shape.zero_is_failure:
        row = int(np.argmin(good))
        names = columns.shape.prompt if prompts[row] < 1 else columns.shape.output
        got = min(int(prompts[row]), int(outputs[row]))
        column = columns.one_of(names)
        where = f"{column.path}:{column.lines[row]}: {column.name}"
        raise ArrivalsError(f"{where}: must be >= 1; got {got}")
    if not good.any():
        raise ArrivalsError(f"{columns.path}: holds no arrivals")
    return np.flatnonzero(good)[:limit]


class _Columns:
    """The columns of a file that its format knows; other cells are let go row by row."""

    def __init__(
        self, shape: Format, rows: Iterable[NumberedRow], path: Path, names: Sequence[str]
    ) -> None:
        self.shape, self.path = shape, path
        known = (*shape.time, *shape.prompt, *shape.output)
        known += (shape.tenant, shape.task_class, shape.blocks)
        self._values: dict[str, list[object]] = {n: [] for n in known if n and n in names}
        self._lines: list[int | str] = []
        for line, row in rows:
            for refused, why in shape.refused.items():
                if refused in row and not set(shape.time) & set(row):
                    raise ArrivalsError(f"{path}:{line}: {refused}: {why}")
            self._lines.append(line)
            for name, values in self._values.items():
                values.append(row.get(name))
        if not self._lines:
            raise ArrivalsError(f"{path}: holds no arrivals")

    def one_of(self, names: tuple[str, ...], kept: np.ndarray | None = None) -> Column:
        """Return the column of the first of ``names`` that the file has."""
        name = next(name for name in names if name in self._values)
        values, lines = self._values[name], self._lines
        if kept is not None and not np.array_equal(kept, np.arange(len(lines))):
            values = [values[row] for row in kept.tolist()]
            lines = [lines[row] for row in kept.tolist()]
        return Column(path=self.path, name=name, values=values, lines=lines)

    def labels(self, name: str | None, kept: np.ndarray) -> Labels | None:
        """Return a column of names, if the format and the file have one."""
        if name is None or name not in self._values:
            return None
        column = self.one_of((name,), kept)
        for row, value in enumerate(column.values):
            if not isinstance(value, str):
                column.blame(row, "must be a text")
        return Labels.of([str(value) for value in column.values])

    def prefixes(
        self, kept: np.ndarray, prompts: np.ndarray, block_tokens: int | None
    ) -> Prefixes | None:
        """Return the block ids, if the format and the file have some."""
        name, shape = self.shape.blocks, self.shape
        if name is None or name not in self._values:
            return None
        size = shape.block_tokens if block_tokens is None else block_tokens
        column = self.one_of((name,), kept)
        found: list[Sequence[object]] = []
        for row, tokens in enumerate(prompts[kept].tolist()):
            ids = _list(column, row)
            if shape.tokens_as_blocks:
                whole = range(0, len(ids) - size + 1, size)
                ids = [tuple(ids[start : start + size]) for start in whole]
            else:
                most = -(-tokens // size)
                least = tokens // size if shape.whole_prompt and ids else 0
                if not least <= len(ids) <= most:
                    span = f"at most {most}" if not least else f"{least} to {most}"
                    rule = f"{tokens} tokens are {span} blocks of {size} (block_tokens)"
                    where = f"{column.path}:{column.lines[row]}: {name}"
                    raise ArrivalsError(f"{where}: {rule}; got {len(ids)}")
            found.append(ids)
        return Prefixes.of(found, size)


def _list(column: Column, row: int) -> list[int]:
    value = column.values[row]
    if value is None:  # a prompt that nobody named
        return []
    if isinstance(value, str):  # in a CSV file
        return [_id(column, row, one) for one in value.split()]
    if not isinstance(value, list):
        column.blame(row, "must be a list")
    return [_id(column, row, one) for one in value]


def _id(column: Column, row: int, one: object) -> int:
    """Return an id, as it is or from the text of a CSV file: equal blocks have equal ids."""
    if type(one) is int:
        return one
    if isinstance(one, str) and isinstance(column.values[row], str):
        with suppress(ValueError):
            return int(one)
    where = f"{column.path}:{column.lines[row]}: {column.name}"
    raise ArrivalsError(f"{where}: ids must be whole numbers; got {one!r}")
