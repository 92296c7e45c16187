"""One recorded request: a row of a trace's request table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One row of the request table (schema ``REQUESTS``)."""

    request: int  # index of this row
    prompt_id: str  # "<source>/<row>"
    task_class: str
    source: str
    prompt_sha256: str  # of the prompt's text
    prompt_tokens: int
    output_tokens: int  # equals this request's token rows
    finish_reason: str  # "stop" or "length"
    temperature: float  # the user's T while recording; 0 is greedy
    seed: int
