"""Record an entropy trace: prompts × temperatures through a dense engine, into one Parquet file.

Each finished request is parked in a work folder beside the output, so an interrupted recording
resumes where it stopped; the trace itself appears only when it is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.engine import Engine, Submission
from backend.models import LoadedModel
from backend.recorder import TraceRecorder, WhatIf
from controllers.core import require
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from traces.atomic import atomic_path
from traces.header import RecordedRequest
from traces.prompts import Prompt
from traces.store import TraceWriter


class RecordingFailed(RuntimeError):
    """Requests that gave no usable recording, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPlan:
    """What to record: every prompt at every temperature, ``max_tokens`` each."""

    prompts: tuple[Prompt, ...]
    temperatures: tuple[float, ...]
    max_tokens: int
    seed: int

    def __post_init__(self) -> None:
        require(len(self.prompts) >= 1, "prompts must not be empty", prompts=len(self.prompts))
        require(
            len(self.temperatures) >= 1 and all(t > 0 for t in self.temperatures),
            "temperatures must be > 0",
            temperatures=self.temperatures,
        )

    def jobs(self) -> list[tuple[Prompt, float, int]]:
        """Return (prompt, temperature, seed) in trace order; one noise stream per recording."""
        temperatures, base = self.temperatures, self.seed * 1_000_003
        return [
            (prompt, t, base + i * len(temperatures) + j)
            for i, prompt in enumerate(self.prompts)
            for j, t in enumerate(temperatures)
        ]

    def digest(self, provenance: Mapping[str, object], what_if: WhatIf) -> str:
        """Name this recording and the code's state, so that no other's work is ever mixed in."""
        text = json.dumps([asdict(self), asdict(what_if), dict(provenance)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def record(
    loaded: LoadedModel,
    plan: RecordingPlan,
    out: Path,
    *,
    limits: EngineLimits,
    step_law: StepLaw,
    what_if: WhatIf,
    provenance: dict[str, object],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run whatever of ``plan`` is not parked yet, then write the trace at ``out``.

    A request that fails does not stop the others; then ``RecordingFailed`` names it, the finished
    ones stay parked, and there is no trace.
    """
    jobs = plan.jobs()
    work = out.with_name(f"{out.name}.{plan.digest(provenance, what_if)}.parts")
    todo = _submissions(loaded, jobs, plan.max_tokens, limits, work)
    work.mkdir(parents=True, exist_ok=True)
    recorder = TraceRecorder(what_if)
    engine = Engine(
        loaded,
        get_preset("baseline"),
        limits,
        step_law,
        recorder=recorder,
        t_cal=float(str(provenance["t_cal"])),
    )
    failed: list[str] = []
    for submission in todo:
        engine.submit(submission.request, submission.prompt)
    finished = len(jobs) - len(todo)
    while engine.loop.has_work:
        engine.step()
        for index in list(engine.done):
            generation = engine.done.pop(index)
            if generation.reason not in ("stop", "length"):
                failed.append(f"request {index} ({jobs[index][0].prompt_id}): {generation.reason}")
                continue
            record_row = _request_row(index, jobs[index], generation.request, generation.reason)
            _park(work, index, record_row, recorder.take(index, index))
            finished += 1
        if progress is not None:
            progress(finished, len(jobs))
    if failed:
        raise RecordingFailed("; ".join(failed))
    _assemble(work, out, len(jobs), provenance)
    shutil.rmtree(work)


def _submissions(
    loaded: LoadedModel,
    jobs: Sequence[tuple[Prompt, float, int]],
    max_tokens: int,
    limits: EngineLimits,
    work: Path,
) -> list[Submission]:
    todo = []
    for index, (prompt, temperature, seed) in enumerate(jobs):
        ids = loaded.encode_chat(prompt.text)
        length = len(ids) + max_tokens
        require(
            length <= limits.max_context,
            f"{prompt.prompt_id}: prompt_tokens + max_tokens must be <= {limits.max_context}",
            tokens=length,
        )
        if _parked(work, index).is_file():
            continue
        request = Request(
            request_id=index,
            prompt_tokens=len(ids),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            task_class=prompt.task_class,
        )
        todo.append(Submission(request=request, prompt=tuple(ids)))
    return todo


def _request_row(
    index: int, job: tuple[Prompt, float, int], request: Request, reason: str
) -> dict[str, object]:
    prompt, temperature, seed = job
    return {
        "request": index,
        "prompt_id": prompt.prompt_id,
        "task_class": prompt.task_class,
        "source": prompt.source,
        "prompt_sha256": hashlib.sha256(prompt.text.encode()).hexdigest(),
        "prompt_tokens": request.prompt_tokens,
        "finish_reason": reason,
        "temperature": temperature,
        "seed": seed,
    }


def _parked(work: Path, index: int) -> Path:
    return work / f"{index:06d}.npz"


def _park(work: Path, index: int, row: dict[str, object], columns: dict[str, np.ndarray]) -> None:
    row["output_tokens"] = len(columns["position"])
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"row": np.array(json.dumps(row)), **columns}
    np.savez(buffer, **arrays)
    with atomic_path(_parked(work, index)) as part:
        part.write_bytes(buffer.getvalue())


def _assemble(work: Path, out: Path, count: int, provenance: dict[str, object]) -> None:
    with TraceWriter(out, provenance) as writer:
        for index in range(count):
            with np.load(_parked(work, index)) as parked:
                writer.add_request(RecordedRequest(**json.loads(str(parked["row"]))))
                writer.add_tokens({name: parked[name] for name in parked.files if name != "row"})
