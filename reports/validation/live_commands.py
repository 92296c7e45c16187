"""What ``entropic validate --profile`` does: prepare, measure, compare, write."""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controllers.core import require
from reports.validation.live_load import LiveError, LiveOptions
from traces.atomic import atomic_path
from traces.console import FAILED, commit, emit_json, note, package_versions, progress

AZURE = Path("arrivals") / "azure_llm_2023_conv.csv.gz"
HERE = Path(__file__).parent
LIBRARIES = ("entropic-time", "numpy", "scipy", "simpy", "torch", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """What the command line asked for."""

    profile: Path
    options: LiveOptions
    out: Path
    arrivals: Path | None
    model: str | None
    device: str
    dtype: str | None
    pages: int | None
    resume: bool
    rescale: bool
    stop_after_s: float
    require_stable: bool
    json: bool


def validate_live(asked: LiveRequest) -> int:
    """Run or finish a live campaign; return the exit code."""
    from backend.models import load
    from backend.place import place_of
    from reports.validation.live_campaign import measure, prepare
    from reports.validation.live_document import document_of
    from reports.validation.live_profile import check_device
    from reports.validation.live_text import live_text
    from reports.validation.live_turns import repriced, turns_of
    from traces.arrivals import read_arrivals
    from traces.profile import read_profile

    require(
        not (asked.rescale and asked.options.profile_passes),
        "rescale and profile_passes exclude each other: reference steps are priced by --profile",
        profile_passes=asked.options.profile_passes,
    )
    require(asked.stop_after_s > 0.0, "stop_after must be > 0 s", stop_after=asked.stop_after_s)
    profile = read_profile(asked.profile)
    device, dtype = place_of(asked.device, asked.dtype)
    check_device(profile, device)  # before a model is loaded for nothing
    arrivals = read_arrivals(_arrivals(asked.arrivals))
    state, versions = commit(HERE), package_versions(*LIBRARIES)
    with progress("recording") as update:
        campaign = prepare(
            asked.options,
            arrivals,
            profile,
            load(asked.model, device=device, dtype=dtype),
            asked.out,
            pages=asked.pages,
            resume=asked.resume,
            commit=state,
            versions=versions,
            progress=update,
        )
    turns = turns_of(campaign)
    with turns if turns is not None else nullcontext():
        between = None if turns is None else turns.take
        left = measure(campaign, note, between=between, stop_after_s=asked.stop_after_s)
        if left:
            note(f"{left} runs left: go on with --resume")
            if asked.json:
                emit_json(
                    "validate", seed=asked.options.seed, config=asked.options.to_json(), left=left
                )
            return 0
        if turns is not None:
            campaign = repriced(campaign, turns)
    document = {
        "command": "entropic validate --profile P --out DIR",
        "commit": state,
        "versions": versions,
        **document_of(campaign, rescale=asked.rescale),
    }
    write_live(asked.out, document)
    if asked.json:
        kept = {name: document[name] for name in document if name not in ("cells", "runs")}
        rows = [
            {"preset": cell["preset"], "load": cell["load"], **row}
            for cell in document["cells"]
            for row in cell["rows"]
        ]
        emit_json(
            "validate",
            seed=asked.options.seed,
            config=asked.options.to_json(),
            rows=rows,
            live=kept,
        )
    else:
        sys.stdout.write(live_text(document))
    return FAILED if asked.require_stable and _unstable(document) else 0


def write_live(out: Path, document: Mapping[str, Any]) -> None:
    """Write ``live_validation.json`` and its figures."""
    from reports.figures.live_validation import curves, latencies, queues
    from reports.style import save
    from reports.validation.live_section import live_footer

    with atomic_path(out / "live_validation.json") as part:
        part.write_text(encoder.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    footer = live_footer(document)
    drawn = {"live_validation": latencies, "live_trajectories": curves, "live_growth": queues}
    for name, draw in drawn.items():
        figure = draw(document, footer=footer)
        if figure is not None:
            save(figure, out / f"{name}.png")
    note(f"wrote live_validation.json and its figures to {out}")


def _arrivals(given: Path | None) -> Path:
    if given is not None:
        return given
    from backend.setup import data_folder

    folder = data_folder()
    if folder is None or not (folder / AZURE).is_file():
        raise LiveError("arrivals: give a file, or name the public data in ENTROPIC_DATA")
    return folder / AZURE


def _unstable(document: Mapping[str, Any]) -> bool:
    """Whether a queue grows without end: below capacity surely so, above it not surely not."""
    below = [cell["stability"] for cell in document["cells"] if cell["load"] > 0.0]
    above = [
        found[f"verdict_{name}"]["verdict"]
        for found in document["growth"]
        for name in ("measured", "simulated")
    ]
    grows = any("unstable" in verdicts.values() for verdicts in below)
    return grows or any(verdict != "stable" for verdict in above)


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Read ``.5,.8``; ``LiveError`` names the option and what it was given."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise LiveError(f"{option}: must be numbers separated by commas; got {text!r}") from None


def limits(option: str, text: str) -> tuple[int, int]:
    """Read ``64-1024``."""
    low, dash, high = text.partition("-")
    if not dash or not low.isdecimal() or not high.isdecimal():
        raise LiveError(f"{option}: must be LO-HI in tokens; got {text!r}")
    return int(low), int(high)
