"""How a measurement is kept: it says where it comes from, and is written whole or not at all."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traces.atomic import atomic_path
from traces.console import commit, package_versions

if TYPE_CHECKING:
    from backend.models import LoadedModel

LIBRARIES = ("torch", "transformers", "numpy", "entropic-time")


def header(loaded: LoadedModel | None = None) -> dict[str, Any]:
    """Return command, commit and versions; with a model also its name, weights and the device."""
    found: dict[str, Any] = {
        "command": " ".join(["entropic", *map(shlex.quote, sys.argv[1:])]),
        "commit": commit(Path(__file__).parent),
        "versions": package_versions(*LIBRARIES),
    }
    return found if loaded is None else found | model_header(loaded)


def model_header(loaded: LoadedModel) -> dict[str, Any]:
    """Return which weights ran on which device."""
    from backend.place import device_name

    return {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "device": device_name(loaded.device),
    }


def write_document(out: Path, document: dict[str, Any]) -> None:
    """Write ``document`` as JSON to ``out``, making its folder; atomic."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
