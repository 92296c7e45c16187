"""What made an output: one header for every file and JSON document that a command writes.

It holds no time and no folder of the machine, and of the command line only what decides the
numbers: equal seeds and arguments give equal bytes, wherever and by however many processes.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from traces.console import commit, package_versions

KEY = "provenance"
LIBRARIES = ("numpy", "scipy", "simpy", "pyarrow", "joblib", "torch")
ASIDE = ("--out", "--ledger-out", "--perfetto", "--decisions", "--html", "--jobs")
ASIDE_FLAGS = ("--json", "--cluster", "--fresh")


def provenance(
    schema: str,
    *,
    seed: int | None,
    config: Mapping[str, Any] | None = None,
    libraries: Iterable[str] = LIBRARIES,
) -> dict[str, object]:
    """Return the header of an output of ``schema``; every output has these keys.

    ``config`` is a scenario's ``to_json``: of it the trace's digest and the profile are named, null
    where it has none.
    """
    known = {} if config is None else config
    model, device = known.get("planned_model"), known.get("profile_device")
    return {
        "schema": schema,
        "entropic": importlib.metadata.version("entropic-time"),
        "commit": commit(Path(__file__).parent),
        "versions": package_versions(*libraries),
        "seed": seed,
        "trace_sha256": known.get("trace_sha256"),
        "profile": None if device is None else f"{model} on {device}",
        "arguments": argument_line(),
    }


def told(made: Mapping[str, Any]) -> dict[str, str]:
    """Return of a header what stands on a page: the command line, commit and versions."""
    lines = {"command": made.get("arguments"), "commit": made.get("commit")}
    found = {name: str(line) for name, line in lines.items() if line is not None}
    versions = made.get("versions")
    if versions:
        found["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return found


def argument_line(words: Sequence[str] | None = None) -> str:
    """Return the command line (default: this process's), without what decides no number.

    Left out are the names of outputs and how the work is shared out; of a file in an absolute
    folder, or above this one, the name alone is kept.
    """
    program, *rest = sys.argv if words is None else words
    name = Path(program).name.removesuffix(".py")
    return shlex.join([name, *(_without_folder(word) for word in _deciding(rest))])


def _deciding(words: Iterable[str]) -> Iterator[str]:
    left = iter(words)
    for word in left:
        option, equals, _ = word.partition("=")
        if option in ASIDE:
            if not equals:
                next(left, None)
        elif word not in ASIDE_FLAGS:
            yield word


def _without_folder(word: str) -> str:
    """Cut a word, or the value behind its ``=``, to a file's name where it leads elsewhere."""
    if _elsewhere(word):
        return Path(word).name
    name, equals, value = word.partition("=")
    return f"{name}={Path(value).name}" if equals and _elsewhere(value) else word


def _elsewhere(text: str) -> bool:
    path = Path(text)
    return bool(path.name) and (path.is_absolute() or path.parts[0] in ("..", "~"))
