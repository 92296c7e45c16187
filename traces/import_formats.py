"""Arrival traces with one row per request, told apart by their columns.

================  ==========================================  ===========  ========  ===============
source            time, prompt, output                        time unit    in order  and
================  ==========================================  ===========  ========  ===============
azure             TIMESTAMP, ContextTokens, GeneratedTokens   UTC clock    yes
mooncake          timestamp, input_length, output_length      ms           yes       hash_ids: 512 t
burstgpt          Timestamp, Request tokens, Response tokens  s            yes       Log Type: class
vidur             arrived_at, num_prefill_tokens,             s            no
                  num_decode_tokens
llmservingsim     arrival_time_ns, input_toks, output_toks    ns           no        input_tok_ids
llmservingsim-run arrival_time, input_toks, output_toks       epoch s      no
entropic          arrival_s, prompt_tokens, output_tokens     s            yes       tenant,
                                                                                     task_class,
                                                                                     block_ids
================  ==========================================  ===========  ========  ===============

``mooncake`` is also what AIPerf, Dynamo and AISimulate read and write: ``created_time``,
``input_tokens`` and ``output_tokens`` stand for its columns. ``.gz`` is read as is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from traces.arrivals import ArrivalsError
from traces.import_text import Column, clock_s, seconds, shown

TOKEN_BLOCK = 16  # tokens: blocks cut from prompts given token by token
SESSIONS = "rows of a closed-loop session have no time of their own; make them with sessions"


def in_seconds(unit_s: float) -> Callable[[Column], np.ndarray]:
    """Return the reader of times in units of ``unit_s`` seconds."""
    return lambda column: seconds(column, unit_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one source names and writes its columns."""

    name: str
    time: tuple[str, ...]  # the column's names: the first that is there counts
    prompt: tuple[str, ...]
    output: tuple[str, ...]
    seconds: Callable[[Column], np.ndarray]
    ordered: bool  # whether the source promises rows in time order
    zero_is_failure: bool = False
    tenant: str | None = None
    task_class: str | None = None
    blocks: str | None = None
    block_tokens: int = TOKEN_BLOCK
    json_only: bool = False  # its names are too common to tell it from other tables
    whole_prompt: bool = False  # whether the blocks cover every prompt, or none of it
    tokens_as_blocks: bool = False  # ``blocks`` holds token ids, to be cut into blocks
    licence: str = ""
    note: str = ""
    refused: dict[str, str] = field(default_factory=dict)  # columns, and why their rows are not


FORMATS = (
    Format(
        name="azure-2023",
        time=("TIMESTAMP",),
        prompt=("ContextTokens",),
        output=("GeneratedTokens",),
        seconds=clock_s,
        ordered=True,
        licence="CC-BY-4.0 if from Azure/AzurePublicDataset",
    ),
    Format(
        name="mooncake",
        time=("timestamp", "created_time"),
        prompt=("input_length", "input_tokens"),
        output=("output_length", "output_tokens"),
        seconds=in_seconds(1e-3),
        ordered=True,
        json_only=True,
        blocks="hash_ids",
        block_tokens=512,
        whole_prompt=True,
        licence="Apache-2.0 if from kvcache-ai/Mooncake",
        refused={"delay": SESSIONS, "delay_ms": SESSIONS},
    ),
    Format(
        name="burstgpt",
        time=("Timestamp",),
        prompt=("Request tokens",),
        output=("Response tokens",),
        seconds=in_seconds(1.0),
        ordered=True,
        zero_is_failure=True,
        task_class="Log Type",
        licence="CC-BY-4.0 if from HPMLL/BurstGPT",
    ),
    Format(
        name="vidur",
        time=("arrived_at",),
        prompt=("num_prefill_tokens",),
        output=("num_decode_tokens",),
        seconds=in_seconds(1.0),
        ordered=False,
    ),
    Format(
        name="llmservingsim",
        time=("arrival_time_ns",),
        prompt=("input_toks",),
        output=("output_toks",),
        seconds=in_seconds(1e-9),
        ordered=False,
        blocks="input_tok_ids",
        tokens_as_blocks=True,
        refused={"sub_requests": SESSIONS},
    ),
    Format(
        name="llmservingsim-run",
        time=("arrival_time",),
        prompt=("input_toks",),
        output=("output_toks",),
        seconds=in_seconds(1.0),
        ordered=False,
        note="lengths are what a real engine received and gave; its own times are not read",
    ),
    Format(
        name="entropic",
        time=("arrival_s",),
        prompt=("prompt_tokens",),
        output=("output_tokens",),
        seconds=in_seconds(1.0),
        ordered=True,
        tenant="tenant",
        task_class="task_class",
        blocks="block_ids",
    ),
)


def detect(names: Sequence[str], path: Path, line: int, *, table: bool = False) -> Format:
    """Return the format with the columns ``names``, of a ``table`` (CSV) or of JSON lines."""
    for shape in FORMATS:
        if table and shape.json_only:
            continue
        if all(set(each) & set(names) for each in (shape.time, shape.prompt, shape.output)):
            return shape
    for shape in FORMATS:
        for refused, why in shape.refused.items():
            if refused in names:
                raise ArrivalsError(f"{path}:{line}: {refused}: {why}")
    if lengths_only(names):
        time = _vidur().time[0]
        rule = "is missing: lengths without times serve `trace synth --lengths`"
        raise ArrivalsError(f"{path}:{line}: {time}: {rule}")
    known = "; ".join(f"{f.name}: {f.time[0]}, {f.prompt[0]}, {f.output[0]}" for f in FORMATS)
    raise ArrivalsError(
        f"{path}:{line}: columns {shown(list(names))} match no known format ({known})"
    )


def lengths_only(names: Sequence[str]) -> bool:
    """Return whether a table has Vidur's lengths and no times."""
    vidur = _vidur()
    lengths = {*vidur.prompt, *vidur.output}
    return lengths <= set(names) and not set(vidur.time) & set(names)


def _vidur() -> Format:
    return next(shape for shape in FORMATS if shape.name == "vidur")
