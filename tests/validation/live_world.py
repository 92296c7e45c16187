"""A live campaign in seconds: a tiny model, a short window, a law that was not fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.models import LoadedModel
from backend.place import processor
from reports.validation.live_campaign import Campaign, prepare
from reports.validation.live_load import LiveOptions
from reports.validation.live_observed import Observed
from tests.backend.tiny import STEP_LAW
from traces.arrivals import Arrivals, poisson
from traces.profile import Profile

OPTIONS = LiveOptions(
    loads=(0.8, 1.1),
    presets=("baseline", "full"),
    requests=5,
    repeats=2,
    overload_requests=10,
    overload_repeats=1,
    prompt_tokens=(20, 160),
    overload_prompt_tokens=(20, 40),
    max_tokens=6,
    sparse_from=64,
    redo_beyond=1e6,  # a busy machine is no reason to play again
)
LIMITS = {
    "max_context": 512,
    "max_seqs": 8,
    "n_pages": 400,
    "page_tokens": 16,
    "token_budget": 128,
}


def profile(**changed: Any) -> Profile:
    """Return a profile of this machine and the tiny model."""
    made = Profile(
        device=processor(),
        model="tiny",
        backend="torch cpu",
        dtype="float32",
        commit="unknown",
        created="2026-01-01T00:00:00+00:00",
        versions={},
        ranges={},
        fit_error={"held_out_mean_abs_pct": 50.0},
        step_law=STEP_LAW.to_json(),
        limits=LIMITS,
    )
    return replace(made, **changed)


def arrivals(n: int = 60) -> Arrivals:
    """Return a trace with lengths."""
    rng = np.random.default_rng(0)
    return replace(poisson(5.0, n, rng), prompt_tokens=rng.integers(50, 4000, n))


def campaign(
    loaded: LoadedModel, out: Path, options: LiveOptions = OPTIONS, **changed: Any
) -> Campaign:
    """Prepare a campaign in ``out``."""
    asked: dict[str, Any] = {"pages": None, "resume": False, "commit": "unknown", "versions": {}}
    described = changed.pop("profile", None) or profile()
    return prepare(options, arrivals(), described, loaded, out, **(asked | changed))


def observed(arrival_s: np.ndarray, first_s: np.ndarray, finish_s: np.ndarray) -> Observed:
    """Return a run of one-token-a-step requests with these times, seconds ``[R]``."""
    n = len(arrival_s)
    ns = {"arrival_ns": arrival_s, "first_scheduled_ns": arrival_s, "first_token_ns": first_s}
    columns = {name: np.rint(1e9 * at).astype(np.int64) for name, at in ns.items()}
    columns["finish_ns"] = np.rint(1e9 * finish_s).astype(np.int64)
    columns["request_id"] = np.arange(n)
    columns["prompt_tokens"] = np.full(n, 10)
    columns["tokens"] = np.full(n, 2)
    columns["preemptions"] = np.zeros(n, np.int64)
    ids = np.repeat(np.arange(n), 2)
    tokens = {
        "request_id": ids,
        "position": np.tile([0, 1], n),
        "now_ns": np.stack([columns["first_token_ns"], columns["finish_ns"]], 1).ravel(),
        **{name: np.linspace(0.5, 1.0, 2 * n) for name in ("h_applied", "h_cal", "coverage")},
        "command": np.zeros(2 * n),
    }
    steps = {name: np.ones(3, np.int64) for name in ("now_ns", "page_units_read")}
    steps["page_units_dense"] = np.full(3, 2)
    return Observed(requests=columns, tokens=tokens, steps=steps)
