"""What a page is drawn from, and what a section of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from reports.live import Reply
from reports.studies.ablation import Ablation
from reports.studies.load import LoadSweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a page is drawn from."""

    ablation: Ablation
    load: LoadSweep | None
    trace_info: Mapping[str, Any]  # traces.info.describe
    results: Mapping[str, Any] = field(default_factory=dict)  # committed measurements, by name
    replies: tuple[Reply, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One section of the page; ``html`` is markup, everything else is text."""

    name: str  # of the anchor and of the figure's file
    title: str
    html: str = ""
    figure: Figure | None = None
    caption: str = ""
