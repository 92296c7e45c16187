"""What the live commands do, free of any terminal: generate, record, profile."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.engine import Engine, Submission
from backend.executor import LiveExecutor
from backend.models import load
from backend.profile import FEATURES, fit, grid, measure
from backend.recorder import WhatIf
from backend.recording import RecordingPlan, record
from backend.setup import (
    PAGE_TOKENS,
    default_limits,
    default_step_law,
    make_request,
    page_unit_bytes,
)
from controllers.presets import Preset, get_preset, shadowed
from controllers.serving.messages import Plan, Result
from controllers.serving.metrics import Metric, summarise
from controllers.steplaw import StepLaw
from kernels.page_select.naive import Pins
from traces.profile import Profile
from traces.prompts import Prompt

Progress = Callable[[int, int], None]
MAX_SEQS = 16  # sequences at once in ``generate``
PROFILE_POOL_TOKENS = 65536  # largest decode batch x context that is timed, 3 GB for SmolLM2


def generate_texts(
    texts: list[str],
    preset: Preset,
    *,
    model: str | None,
    max_tokens: int,
    temperature: float,
    target_nats: float,
    one_sided: bool,
    seed: int,
    shadow: bool = False,
    n_pages: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, object]], dict[str, Metric]]:
    """Generate one reply per text; return a row per request and the run's metrics.

    With ``shadow`` the requests run under ``baseline`` and the rows also say what mean temperature
    ``preset`` would have set. ``n_pages`` bounds the KV pool.
    """
    loaded = load(model)
    submissions = []
    for index, text in enumerate(texts):
        request, ids = make_request(
            loaded,
            index,
            text,
            max_tokens=max_tokens,
            temperature=temperature,
            target_nats=target_nats,
            seed=seed + index,
            one_sided=one_sided,
        )
        submissions.append(Submission(request=request, prompt=ids))
    lengths = [min(len(s.prompt) + max_tokens, loaded.max_context) for s in submissions]
    most = sum(sorted(lengths)[-MAX_SEQS:]) + MAX_SEQS * PAGE_TOKENS  # nobody waits for pages
    limits = default_limits(loaded, max_seqs=MAX_SEQS, token_budget=512, pool_tokens=most)
    if n_pages is not None:
        limits = replace(limits, n_pages=n_pages)
    engine = Engine(loaded, shadowed(preset) if shadow else preset, limits, default_step_law())
    watch = _Watch(engine, max_tokens * len(texts), progress)
    engine.on_step = watch.on_step
    generations = engine.run(submissions)
    rows = [
        _row(engine, generation.request.request_id, loaded.tokenizer, generation.tokens)
        | {"finish_reason": generation.reason}
        | watch.shadow_of(generation.request.request_id)
        for generation in generations
    ]
    metrics = summarise(
        engine.ledger,
        step_law=engine.step_law,
        bytes_per_page_unit=page_unit_bytes(loaded, limits.page_tokens),
    )
    return rows, metrics


class _Watch:
    """Follows a run: draws its progress, and keeps the commands of a shadowed law."""

    def __init__(self, engine: Engine, total: int, progress: Progress | None) -> None:
        self._engine, self._total, self._progress = engine, total, progress
        self._shadow: dict[int, list[float]] = {}

    def on_step(self, plan: Plan, result: Result) -> None:
        if self._progress is not None:
            self._progress(len(self._engine.ledger.tokens), self._total)
        if result.shadow is not None:
            for request_id, x in zip(plan.sampled, result.shadow.tolist(), strict=True):
                self._shadow.setdefault(request_id, []).append(x)

    def shadow_of(self, request_id: int) -> dict[str, object]:
        """Return the mean temperature the shadowed law would have set, if there is one."""
        commands = self._shadow.get(request_id)
        return (
            {} if commands is None else {"shadow_temperature_mean": float(np.exp(commands).mean())}
        )


def _row(engine: Engine, request_id: int, tokenizer, tokens: tuple[int, ...]) -> dict[str, object]:
    columns = engine.ledger.tokens
    mine = columns["request_id"] == request_id
    mean = {
        name: float(values[mine].mean()) if mine.any() else None
        for name, values in (
            ("entropy_nats", columns["h_applied"]),
            ("temperature_mean", np.exp(columns["command"], dtype=np.float64)),
            ("coverage", columns["coverage"]),
            ("nll_nats", columns["surprisal"]),
        )
    }
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return {"request_id": request_id, "text": text, "tokens": len(tokens), **mean}


def record_trace(
    out: Path,
    prompts: tuple[Prompt, ...],
    temperatures: tuple[float, ...],
    *,
    model: str | None,
    max_tokens: int,
    max_seqs: int,
    seed: int,
    command: str,
    commit: str,
    versions: dict[str, str],
    progress: Progress | None = None,
    t_cal: float = 1.0,
) -> None:
    """Record prompts × temperatures densely into a trace at ``out``."""
    plan = RecordingPlan(
        prompts=prompts, temperatures=temperatures, max_tokens=max_tokens, seed=seed
    )
    loaded = load(model)
    longest = max(len(loaded.encode_chat(prompt.text)) for prompt in prompts) + max_tokens
    limits = default_limits(
        loaded, max_seqs=max_seqs, token_budget=1024, pool_tokens=max_seqs * (longest + 16)
    )
    pins = Pins()
    provenance = {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "t_cal": t_cal,
        "page_tokens": limits.page_tokens,
        "layers": loaded.layers,
        "kv_heads": loaded.kv_heads,
        "page_unit_bytes": page_unit_bytes(loaded, limits.page_tokens),
        "pins": {"first": pins.first, "recent": pins.recent, "min_pages": pins.min_pages},
        "command": command,
        "commit": commit,
        "versions": versions,
    }
    record(
        loaded,
        plan,
        out,
        limits=limits,
        step_law=StepLaw(  # recording is first come, first served: no price is asked
            base_s=0.0,
            per_decode_s=0.0,
            per_kv_token_s=0.0,
            per_prompt_token_s=0.0,
            per_prompt_square_s=0.0,
        ),
        what_if=WhatIf(),
        provenance=provenance,
        progress=progress,
    )


def run_profile(
    *,
    model: str | None,
    repeats: int,
    max_seqs: int,
    max_context: int,
    token_budget: int,
    seed: int,
    commit: str,
    created: str,
    versions: dict[str, str],
    progress: Progress | None = None,
) -> Profile:
    """Time a grid of dense steps on the live model and fit the step law."""
    loaded = load(model)
    limits = default_limits(
        loaded,
        max_seqs=max_seqs,
        token_budget=token_budget,
        pool_tokens=PROFILE_POOL_TOKENS,
    )
    executor = LiveExecutor(loaded, get_preset("baseline"), limits)
    points = list(grid(max_seqs, max_context, token_budget, PROFILE_POOL_TOKENS))
    rng = np.random.default_rng(seed)
    seconds = measure(executor, points, repeats=repeats, rng=rng, progress=progress)
    fitted = fit(points, seconds, rng)
    design = np.array([point.features() for point in points], dtype=float)
    return Profile(
        device=processor(),
        model=loaded.name,
        backend="torch cpu, dense paged attention",
        dtype="float32",
        commit=commit,
        created=created,
        versions=versions,
        ranges={
            name: (float(column.min()), float(column.max()))
            for name, column in zip(FEATURES, design.T, strict=True)
        },
        fit_error={
            "held_out_mean_abs_pct": 100.0 * fitted.held_out_mape,
            "held_out_max_abs_pct": 100.0 * fitted.held_out_max,
        },
        step_law=fitted.law.to_json(),
        limits=limits.to_json(),
    )


def processor() -> str:
    """Return the processor's own name and the cores torch uses."""
    import torch

    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    named = next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), None)
    return (
        f"{named or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
