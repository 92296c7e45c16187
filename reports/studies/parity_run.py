"""The live run that parity is checked on: everything that can happen to a request happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.engine import Engine, Submission
from backend.models import LoadedModel
from backend.recorder import TraceRecorder
from backend.setup import default_step_law, make_request, page_unit_bytes
from controllers.presets import Preset, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.runlog import write_log
from kernels.page_select.naive import Pins
from traces.console import commit
from traces.prompts import BUILTIN
from traces.store import TraceWriter

SPARSE_FROM = 64  # tokens; presets wait longer, but short prompts must exercise the meso law
QUANTUM = 48  # tokens; low, so that the macro law displaces residents
KILLED_EVERY, CANCELLED_EVERY = 11, 7  # requests


def stress(preset: str) -> Preset:
    """Return a preset whose meso and macro laws act on short prompts too."""
    return replace(get_preset(preset), sparse_min_context=SPARSE_FROM, quantum_tokens=QUANTUM)


def tight_limits(loaded: LoadedModel) -> EngineLimits:
    """Return limits under which pages, slots and prefill chunks all bind."""
    return EngineLimits(max_seqs=4, token_budget=48, n_pages=52, max_context=loaded.max_context)


def submissions(
    loaded: LoadedModel, first_id: int, n_requests: int, max_tokens: int, seed: int, gap_s: float
) -> list[Submission]:
    """Return Poisson arrivals over the built-in prompts, some of whose users hang up."""
    rng = np.random.default_rng([seed, first_id])
    at_s = np.cumsum(rng.exponential(gap_s, n_requests))
    made = []
    for index in range(first_id, first_id + n_requests):
        prompt = BUILTIN[int(rng.integers(len(BUILTIN)))]
        request, ids = make_request(
            loaded,
            index,
            prompt.text,
            max_tokens=int(rng.integers(max_tokens // 2, max_tokens + 1)),
            temperature=float(rng.choice([0.0, 0.6, 0.8, 1.0], p=[0.1, 0.3, 0.3, 0.3])),
            target_nats=float(rng.choice([0.7, 1.0, 1.3])),
            seed=seed * 100_000 + index,
            task_class=prompt.task_class,
            one_sided=bool(rng.random() < 0.2),
        )
        hang_up = int(rng.integers(5, max_tokens // 2))
        cancelled = index % CANCELLED_EVERY == CANCELLED_EVERY - 1
        made.append(
            Submission(
                request=request,
                prompt=ids,
                at_s=float(at_s[index - first_id]),
                cancel_after_tokens=hang_up if cancelled else None,
            )
        )
    return made


def run(
    loaded: LoadedModel,
    preset: Preset,
    log_path: Path,
    trace_path: Path | None,
    *,
    n_requests: int,
    max_tokens: int,
    seed: int,
    provenance: dict[str, object],
    gap_s: float = 0.5,
    min_steps: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Serve live, writing the run's log and (given a path) the trace of its finished requests.

    Waves of ``n_requests`` are served until there are ``min_steps`` steps.
    """
    recorder = TraceRecorder()
    limits = tight_limits(loaded)
    with write_log(log_path) as sink:
        engine = Engine(loaded, preset, limits, default_step_law(), recorder=recorder, sink=sink)
        wanted: list[Submission] = []
        killed: set[int] = set()

        def on_step(*_: object) -> None:
            _flip_switches(engine, killed)
            if progress is not None:
                progress(max(len(engine.done) - 1, 0), len(wanted))

        engine.on_step = on_step
        while not wanted or engine.ledger.step_count < min_steps:  # another wave while short
            wave = submissions(loaded, len(wanted), n_requests, max_tokens, seed, gap_s)
            wanted += wave
            engine.run(wave)
    if trace_path is not None:
        _write_trace(engine, recorder, wanted, trace_path, provenance)


def _flip_switches(engine: Engine, killed: set[int]) -> None:
    """Turn control off for a few requests in mid-flight."""
    for request_id, sequence in list(engine.loop.sequences.items()):
        due = request_id % KILLED_EVERY == KILLED_EVERY - 1 and sequence.generated >= 10
        if due and request_id not in killed:
            killed.add(request_id)
            engine.disable(request_id)


def _write_trace(
    engine: Engine,
    recorder: TraceRecorder,
    wanted: list[Submission],
    path: Path,
    provenance: dict[str, object],
) -> None:
    loaded, limits, pins = engine.loaded, engine.limits, Pins()
    metadata = {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "t_cal": engine.t_cal,
        "page_tokens": limits.page_tokens,
        "layers": loaded.layers,
        "kv_heads": loaded.kv_heads,
        "page_unit_bytes": page_unit_bytes(loaded, limits.page_tokens),
        "commit": commit(Path(__file__).parent),
        "pins": {"first": pins.first, "recent": pins.recent, "min_pages": pins.min_pages},
        **provenance,
    }
    whole = [
        s.request for s in wanted if engine.done[s.request.request_id].reason in ("stop", "length")
    ]
    kept = [request for request in whole if not request.greedy]
    with TraceWriter(path, metadata) as writer:
        for index, request in enumerate(kept):
            columns = recorder.take(request.request_id, index)
            generation = engine.done[request.request_id]
            writer.add_request(
                {
                    "request": index,
                    "prompt_id": f"run/{request.request_id}",
                    "task_class": request.task_class,
                    "source": "builtin",
                    "prompt_sha256": "",
                    "prompt_tokens": request.prompt_tokens,
                    "output_tokens": len(columns["position"]),
                    "finish_reason": generation.reason,
                    "temperature": request.temperature,
                    "seed": request.seed,
                }
            )
            writer.add_tokens(columns)
