"""Our own files of arrivals: a header line that says where they come from, then one row each.

``.jsonl``: an object with ``"entropic_arrivals": 1`` and ``source``, ``licence``,
``block_tokens``, ``dropped``, ``notes``; then objects with ``arrival_s`` (seconds, ascending from
0), ``prompt_tokens``, ``output_tokens``, and where they are known ``tenant``, ``task_class`` and
``block_ids`` (of ``traces.prefixes``). ``.csv``: the same header behind ``# ``, then the same
columns, block ids separated by spaces. ``.gz`` may follow. What is written reads back equal, times
to the last bit.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from traces.arrivals import Arrivals, ArrivalsError
from traces.atomic import atomic_path
from traces.console import check_target as check_place
from traces.provenance import KEY as MADE_BY

KEY, VERSION = "entropic_arrivals", 1
COMMENT = "#"
SUFFIXES = (".csv", ".jsonl", ".csv.gz", ".jsonl.gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Where the arrivals of a file come from."""

    source: str
    licence: str = ""
    block_tokens: int | None = None
    dropped: int = 0
    notes: tuple[str, ...] = ()

    def describe(self, arrivals: Arrivals) -> Arrivals:
        """Return ``arrivals`` as the header describes them."""
        return replace(
            arrivals,
            source=self.source,
            licence=self.licence,
            dropped=self.dropped,
            notes=tuple(dict.fromkeys((*self.notes, *arrivals.notes))),
        )


def header_of(text: str, path: Path) -> Header | None:
    """Return the header in the first line of a file, None where it is not a file of ours."""
    body = text.removeprefix(COMMENT).strip()
    ours = f'"{KEY}"' in text
    if not ours:
        if text.startswith(COMMENT):
            raise ArrivalsError(f"{path}:1: a comment must be our header; got {body[:40]!r}")
        return None
    try:
        found = json.loads(body)
    except ValueError as error:
        raise ArrivalsError(f"{path}:1: must be JSON: {error}") from error
    if not isinstance(found, dict) or KEY not in found:
        return None
    if found[KEY] != VERSION:
        raise ArrivalsError(f"{path}:1: {KEY}: must be {VERSION}; got {found[KEY]!r}")
    return Header(
        source=_field(found, "source", str, "", path),
        licence=_field(found, "licence", str, "", path),
        block_tokens=_field(found, "block_tokens", int, None, path),
        dropped=_field(found, "dropped", int, 0, path),
        notes=tuple(str(note) for note in _field(found, "notes", list, [], path)),
    )


def check_target(path: Path) -> None:
    """Raise where arrivals cannot be written, before the work that makes them."""
    if not path.name.endswith(SUFFIXES):
        raise ArrivalsError(f"out must end in one of {SUFFIXES}; got {str(path)!r}")
    check_place("out", path)


def write_arrivals(
    path: Path, arrivals: Arrivals, *, made: Mapping[str, object] | None = None
) -> None:
    """Write ``arrivals`` to ``path``, or nothing; equal arrivals give equal bytes.

    ``made`` (``traces.provenance``) says in the header what made the file; it is not read back.
    """
    check_target(path)
    if arrivals.prompt_tokens is None or arrivals.output_tokens is None:
        raise ArrivalsError(f"{arrivals.source}: holds no lengths, so it makes no file of arrivals")
    lines = _csv_lines if ".csv" in path.suffixes[-2:] else _json_lines
    with atomic_path(path) as part, part.open("wb") as raw:
        if path.suffix == ".gz":  # without a name or a time, so that equal runs give equal bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                _write(packed, lines(arrivals, made))
        else:
            _write(raw, lines(arrivals, made))


def _write(raw: Any, lines: Iterable[str]) -> None:
    text: TextIO = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    text.writelines(f"{line}\n" for line in lines)
    text.flush()
    text.detach()


def _header(arrivals: Arrivals, made: Mapping[str, object] | None) -> str:
    prefixes = arrivals.prefixes
    return json.dumps(
        {
            KEY: VERSION,
            "source": arrivals.source,
            "licence": arrivals.licence,
            "block_tokens": None if prefixes is None else prefixes.block_tokens,
            "dropped": arrivals.dropped,
            "notes": list(arrivals.notes),
            **({} if made is None else {MADE_BY: made}),
        }
    )


def _columns(arrivals: Arrivals) -> dict[str, list[Any]]:
    assert arrivals.prompt_tokens is not None
    assert arrivals.output_tokens is not None
    columns: dict[str, list[Any]] = {
        "arrival_s": arrivals.times_s.tolist(),
        "prompt_tokens": arrivals.prompt_tokens.tolist(),
        "output_tokens": arrivals.output_tokens.tolist(),
    }
    for name, labels in (("tenant", arrivals.tenants), ("task_class", arrivals.classes)):
        if labels is not None:
            columns[name] = [labels.names[code] for code in labels.codes.tolist()]
    prefixes = arrivals.prefixes
    if prefixes is not None:
        columns["block_ids"] = [prefixes.of_row(row).tolist() for row in range(len(arrivals))]
    return columns


def _json_lines(arrivals: Arrivals, made: Mapping[str, object] | None) -> Iterator[str]:
    yield _header(arrivals, made)
    columns = _columns(arrivals)
    for values in zip(*columns.values(), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True)))


def _csv_lines(arrivals: Arrivals, made: Mapping[str, object] | None) -> Iterator[str]:
    columns = _columns(arrivals)
    yield f"{COMMENT} {_header(arrivals, made)}"
    yield ",".join(columns)
    if "block_ids" in columns:
        columns["block_ids"] = [" ".join(map(str, ids)) for ids in columns["block_ids"]]
    for name in ("tenant", "task_class"):
        if name in columns:
            columns[name] = [_quoted(text) for text in columns[name]]
    for values in zip(*columns.values(), strict=True):
        yield ",".join(map(str, values))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _field(found: dict[str, Any], name: str, kind: type, default: Any, path: Path) -> Any:
    value = found.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArrivalsError(f"{path}:1: {name}: must be {kind.__name__}; got {value!r}")
    return value
