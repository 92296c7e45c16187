"""How fast the machine is now, against the profile: a few fixed steps, none of a validated run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controllers.presets import get_preset
from controllers.serving.request import Request
from reports.validation.live_load import Asked
from reports.validation.live_observed import Observed
from reports.validation.live_play import Machine, play
from reports.validation.live_simulate import Twin

REQUESTS, PROMPT_TOKENS, MAX_TOKENS = 8, 128, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Seconds that the reference steps took over what the profile says; 1 is no drift."""

    prefill: float  # of steps with prompt tokens
    decode: float  # of the others
    total: float


def measure_drift(machine: Machine, twin: Twin, rows: Sequence[Sequence[int]]) -> Drift:
    """Serve a small fixed batch by ``baseline`` and compare its steps with their price.

    ``rows`` are token ids of real text, one per request, as long as the reference prompts at least.
    """
    limits = machine.limits
    prompt = min(PROMPT_TOKENS, len(rows[0]), limits.max_context - MAX_TOKENS)
    pages = REQUESTS * (limits.pages_for(prompt + MAX_TOKENS) + 1)
    small = replace(limits, n_pages=min(pages, limits.n_pages))
    asked = [
        Asked(
            request=Request(
                request_id=index, prompt_tokens=prompt, max_tokens=MAX_TOKENS, seed=index
            ),
            at_s=0.0,
            recording=0,
        )
        for index in range(REQUESTS)
    ]
    texts = [list(rows[index % len(rows)][:prompt]) for index in range(REQUESTS)]
    baseline = get_preset("baseline")
    live = play(replace(machine, limits=small), baseline, asked, texts)
    measured = _by_kind(Observed.of(live.ledger))
    priced = _by_kind(replace(twin, limits=small).serve(baseline, asked))
    return Drift(
        prefill=measured[0] / priced[0],
        decode=measured[1] / priced[1],
        total=sum(measured) / sum(priced),
    )


def _by_kind(seen: Observed) -> tuple[float, float]:
    """Return the seconds from step to step, of those with prompt tokens and of the others.

    The last step has no next one and is left out.
    """
    took = np.diff(seen.steps["now_ns"]) / 1e9
    prompts = seen.steps["prompt_tokens"][:-1] > 0
    return float(took[prompts].sum()), float(took[~prompts].sum())
