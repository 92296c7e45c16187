"""Any file of arrivals, told apart by what is in it, never by its name.

One row per request (``import_formats``, our normal form among them), a result of ``vllm bench
serve`` (``vllm_bench``), or a ledger of ours (``import_ledger``).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TextIO

from traces.arrivals import Arrivals, ArrivalsError, first
from traces.arrivals_file import header_of
from traces.import_formats import detect, lengths_only
from traces.import_ledger import TABLE, read_ledger_lines, read_ledger_parquet
from traces.import_rows import lengths_of, read_rows
from traces.import_text import csv_rows, json_row, json_rows, open_text, whole_document
from traces.vllm_bench import is_bench, read_bench

PARQUET = b"PAR1"


def read(
    path: Path, limit: int | None, *, sort: bool = False, block_tokens: int | None = None
) -> Arrivals:
    """Read the first ``limit`` arrivals; ``block_tokens`` overrides the format's block size."""
    if limit is not None and limit < 1:
        raise ArrivalsError(f"limit must be >= 1; got {limit}")
    if block_tokens is not None and block_tokens < 1:
        raise ArrivalsError(f"block_tokens must be >= 1; got {block_tokens}")
    try:
        if is_parquet(path):
            found = read_ledger_parquet(path)
            return found if limit is None else first(found, limit)
        with open_text(path) as file:
            return _read(file, path, limit, sort=sort, block_tokens=block_tokens)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error


def read_lengths(path: Path) -> Arrivals:
    """Read a file for its lengths alone: one with arrivals, or a Vidur table without times.

    Without times the arrivals are a second apart, and ``notes`` says so.
    """
    try:
        if not is_parquet(path):
            with open_text(path) as file:
                line, text = _first_line(file)
                names = _columns(text, path, line)
                if lengths_only(names):
                    return lengths_of(csv_rows(file, names, path, line), path)
                if text.lstrip().startswith("{"):
                    head = json_row(whole_document(file, text), path, line)
                    if is_bench(head):
                        return read_bench(head, path, None, times=False)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error
    return read(path, None)


def is_parquet(path: Path) -> bool:
    """Return whether ``path`` begins as a Parquet file does."""
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


def _first_line(file: TextIO, after: int = 0) -> tuple[int, str]:
    """Return the next line that is not blank, "" at the end, and its number."""
    for line, text in enumerate(iter(file.readline, ""), start=after + 1):
        if text.strip():
            return line, text
    return after, ""


def _columns(text: str, path: Path, line: int) -> list[str]:
    """Return the names in the first row of a table; of two columns alike one would be lost."""
    names = [name.strip() for name in next(csv.reader([text]), [])]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice and not text.lstrip().startswith("{"):
        raise ArrivalsError(f"{path}:{line}: columns must have names of their own; got {twice}")
    return names


def _read(
    file: TextIO, path: Path, limit: int | None, *, sort: bool, block_tokens: int | None
) -> Arrivals:
    line, text = _first_line(file)
    if not text:
        raise ArrivalsError(f"{path}: is empty")
    header = header_of(text, path)
    if header is not None:
        line, text = _first_line(file, line)
        if not text:
            raise ArrivalsError(f"{path}: holds no arrivals")
    if text.lstrip().startswith("["):
        rule = "must be one JSON object a line, not a list of them (jq -c '.[]' makes lines)"
        raise ArrivalsError(f"{path}:{line}: {rule}")
    table = not text.lstrip().startswith("{")
    if table:
        names = _columns(text, path, line)
        rows = csv_rows(file, names, path, line)
    else:
        head = json_row(whole_document(file, text), path, line)
        names = list(head)
        if is_bench(names):
            if any(more.strip() for more in file):
                raise ArrivalsError(f"{path}:2: holds more than one result; keep one in a file")
            return read_bench(head, path, limit)
        rows = json_rows(file, text, path, line)
        if TABLE in names:
            found = read_ledger_lines(rows, path)
            return found if limit is None else first(found, limit)
    shape = detect(names, path, line, table=table)
    if header is not None and block_tokens is None:
        block_tokens = header.block_tokens
    found = read_rows(shape, rows, path, limit, names=names, sort=sort, block_tokens=block_tokens)
    return found if header is None else header.describe(found)
