"""What the live commands do, free of any terminal: generate and record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from backend.llm import LLM, Progress
from backend.models import LoadedModel, load
from backend.params import Output, SamplingParams
from backend.place import place_of
from backend.recorder import WhatIf
from backend.recording import RecordingPlan, record
from backend.setup import PAGE_TOKENS, default_limits, default_step_law, page_unit_bytes
from backend.stream import Stream
from controllers.presets import Preset
from controllers.serving.metrics import Metric
from controllers.steplaw import StepLaw
from kernels.page_select.naive import Pins
from traces.prompts import Prompt

MAX_SEQS = 16  # sequences at once in ``generate``


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """What ``generate`` asks of the engine, besides each request's parameters."""

    shadow: bool = False  # apply ``baseline``, tell what the preset would have done
    pages: int | None = None  # KV pages in the pool; None: enough that nobody waits
    prefix_caching: bool = True
    device: str = "cpu"
    dtype: str | None = None  # None: the device's own


def generate_texts(
    texts: list[str],
    preset: Preset,
    params: SamplingParams,
    *,
    model: str | None,
    options: GenerateOptions,
    progress: Progress | None = None,
    show: Callable[[str], None] | None = None,
) -> tuple[list[dict[str, object]], dict[str, Metric]]:
    """Reply to each text, a chat turn; return a row per request and the run's metrics.

    The i-th request's seed is ``params.seed + i``. ``show`` gets the text of the replies as it
    comes, one reply after the other.
    """
    device, dtype = place_of(options.device, options.dtype)
    loaded = load(model, device=device, dtype=dtype)
    prompts = [loaded.encode_chat(text) for text in texts]
    with LLM(
        loaded,
        preset,
        max_seqs=MAX_SEQS,
        pool_tokens=_pool_tokens(loaded, prompts, params.max_tokens, options.pages),
        prefix_caching=options.prefix_caching,
        shadow=options.shadow,
        history=None,
        step_law=default_step_law(),
    ) as llm:
        if show is None:
            outputs = llm.generate(prompts, params, progress=progress)
        else:
            outputs = [
                _shown(llm.stream(prompt, replace(params, seed=params.seed + index)), show)
                for index, prompt in enumerate(prompts)
            ]
        return [_row(output) for output in outputs], llm.metrics()


def _pool_tokens(
    loaded: LoadedModel, prompts: list[list[int]], max_tokens: int, n_pages: int | None
) -> int:
    if n_pages is not None:
        return n_pages * PAGE_TOKENS
    lengths = [min(len(ids) + max_tokens, loaded.max_context) for ids in prompts]
    pages = [-(-length // PAGE_TOKENS) for length in lengths]
    return PAGE_TOKENS * max(1, sum(sorted(pages)[-MAX_SEQS:]))


def _shown(stream: Stream, show: Callable[[str], None]) -> Output:
    with stream:
        for delta in stream:
            show(delta.text)
    show("\n")
    assert stream.output is not None, "a stream that ended without an error has an output"
    return stream.output


def _row(output: Output) -> dict[str, object]:
    metrics = asdict(output.metrics)
    metrics["temperature_mean"] = metrics.pop("temperature")
    shadow = {name: metrics.pop(f"shadow_{name}") for name in ("temperature", "coverage")}
    told = {f"shadow_{name}_mean": value for name, value in shadow.items() if value is not None}
    return {
        "request_id": output.request_id,
        "text": output.text,
        "prompt_tokens": output.prompt_tokens,
        "tokens": len(output.token_ids),
        "finish_reason": output.finish_reason,
        "stop_reason": output.stop_reason,
        **metrics,
        **told,
    }


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
