"""Record the campaign's prompts open loop: fixed temperature, dense, with noise no run has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from backend.engine import Engine
from backend.recorder import TraceRecorder, WhatIf
from backend.setup import page_unit_bytes
from controllers.presets import get_preset
from controllers.serving.request import Request
from kernels.page_select.naive import Pins
from reports.validation.live_load import LiveError
from reports.validation.live_play import Machine, Text
from traces.store import TraceWriter

EVERY = 5  # generated tokens between passes that ask what pruning would have done
Progress = Callable[[int, int], None]


def prompt_digest(ids: Sequence[int]) -> str:
    """Return the digest by which a recording knows a prompt."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def record_prompts(
    machine: Machine,
    requests: Sequence[Request],
    prompts: Text,
    out: Path,
    *,
    source: str,
    commit: str,
    versions: dict[str, str],
    progress: Progress | None = None,
) -> None:
    """Serve ``requests`` densely and write what their tokens could have been to ``out``.

    Raises:
        LiveError: a request gave other than the tokens it was asked for.
    """
    recorder = TraceRecorder(WhatIf(every=EVERY, min_context=machine.sparse_from))
    engine = Engine(
        machine.loaded,
        get_preset("baseline"),
        machine.limits,
        machine.step_law,
        recorder=recorder,
        ignore_stop=True,
    )
    for request, prompt in zip(requests, prompts, strict=True):
        engine.submit(request, prompt)
    while engine.loop.has_work:
        engine.step()
        if progress is not None:
            progress(len(engine.done), len(requests))
    with TraceWriter(out, _metadata(machine, engine.t_cal, commit, versions)) as writer:
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            columns = recorder.take(request.request_id, index)
            if len(columns["position"]) != request.max_tokens:
                raise LiveError(
                    f"request {index} must give {request.max_tokens} tokens; "
                    f"it gave {len(columns['position'])}"
                )
            writer.add_request(
                {
                    "request": index,
                    "prompt_id": f"{source}/{index}",
                    "task_class": request.task_class,
                    "source": source,
                    "prompt_sha256": prompt_digest(prompt),
                    "prompt_tokens": request.prompt_tokens,
                    "output_tokens": request.max_tokens,
                    "finish_reason": "length",
                    "temperature": request.temperature,
                    "seed": request.seed,
                }
            )
            writer.add_tokens(columns)


def _metadata(
    machine: Machine, t_cal: float, commit: str, versions: dict[str, str]
) -> dict[str, object]:
    loaded, limits, pins = machine.loaded, machine.limits, Pins()
    return {
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "t_cal": t_cal,
        "page_tokens": limits.page_tokens,
        "layers": loaded.layers,
        "kv_heads": loaded.kv_heads,
        "page_unit_bytes": page_unit_bytes(loaded, limits.page_tokens),
        "pins": {"first": pins.first, "recent": pins.recent, "min_pages": pins.min_pages},
        "command": "entropic validate --profile P",
        "commit": commit,
        "versions": versions,
    }
