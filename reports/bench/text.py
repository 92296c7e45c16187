"""Real text for benchmarks: attention over it is peaked, as it is in service.

Random keys would spread attention evenly, and coverage would then keep nearly every page.
"""

from __future__ import annotations

import gzip
import inspect
from pathlib import Path

from backend.models import LoadedModel
from backend.setup import data_folder
from reports.bench.rows import BenchError

NOVEL = Path("prompts") / "haystack" / "moby_dick.txt.gz"
MODULES = ("argparse", "decimal", "typing", "tarfile", "turtle", "pickle", "subprocess", "ast")


def text_name() -> str:
    """Return which text :func:`long_text` gives here: a novel, or Python's own source.

    The novel is in the public data that ``ENTROPIC_DATA`` names; the source is on every machine.
    """
    return "python_source" if _novel() is None else "moby_dick"


def long_text() -> str:
    """Return text of some 400,000 characters."""
    novel = _novel()
    if novel is None:
        return "\n".join(_source(name) for name in MODULES)
    with gzip.open(novel, "rt", encoding="utf-8") as file:
        return file.read()[20_000:420_000]  # past the table of contents and the quotations


def token_rows(
    loaded: LoadedModel, batch: int, length: int, text: str | None = None
) -> list[list[int]]:
    """Return ``batch`` lists of ``length`` token ids, each from another place of the text.

    Where the text is too short for disjoint rows they overlap, but never start at one place.
    """
    ids = list(loaded.tokenizer(long_text() if text is None else text).input_ids)
    if len(ids) < length + batch:
        raise BenchError(f"context must be < {len(ids) - batch} tokens of text; got {length}")
    stride = max(1, (len(ids) - length) // batch)
    return [ids[i * stride : i * stride + length] for i in range(batch)]


def _novel() -> Path | None:
    folder = data_folder()
    return folder / NOVEL if folder is not None and (folder / NOVEL).is_file() else None


def _source(name: str) -> str:
    return inspect.getsource(__import__(name))
