"""Results of ``vllm bench serve --save-result --save-detailed`` as arrivals.

The result is one JSON object with a list per field and an entry per request: ``input_lens``,
``output_lens`` (0 for a failed request), ``start_times`` (seconds of the client's own clock, in
newer versions), ``errors``; ``ttfts`` and ``itls`` are measurements, and not arrivals. Without
``--save-detailed`` the lists are missing. ``--append-result`` writes one object per line; files
of several are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from traces.arrivals import Arrivals, ArrivalsError
from traces.import_formats import Format, in_seconds
from traces.import_rows import lengths_of, read_rows
from traces.import_text import NumberedRow

PROMPTS, OUTPUTS, TIMES, ERRORS = "input_lens", "output_lens", "start_times", "errors"
SUMMARY = ("request_throughput", "total_input_tokens")
BENCH = Format(
    name="vllm-bench",
    time=(TIMES,),
    prompt=(PROMPTS,),
    output=(OUTPUTS,),
    seconds=in_seconds(1.0),
    ordered=False,
    zero_is_failure=True,
)


def is_bench(names: Iterable[str]) -> bool:
    """Return whether an object with the keys ``names`` is a result of ``vllm bench serve``."""
    found = set(names)
    return PROMPTS in found or set(SUMMARY) <= found


def read_bench(
    document: Mapping[str, Any], path: Path, limit: int | None, *, times: bool = True
) -> Arrivals:
    """Return the requests of a result; ``times`` off takes the lengths alone.

    Failed requests are left out and counted. Raises where the result has no single requests, or
    no ``start_times`` though they are wanted.
    """
    if PROMPTS not in document or OUTPUTS not in document:
        why = "the result has no single requests; run vllm bench serve with --save-detailed"
        raise ArrivalsError(f"{path}: {PROMPTS}: {why}")
    if times and TIMES not in document:
        why = "missing: this version of vLLM does not say when requests were sent; its lengths "
        raise ArrivalsError(f"{path}: {TIMES}: {why}serve `trace synth --lengths`")
    wanted = (PROMPTS, OUTPUTS, *((TIMES,) if times else ()))
    rows = _rows(document, wanted, path)
    if not times:
        return lengths_of(rows, path, BENCH)
    found = read_rows(BENCH, rows, path, limit, names=wanted, sort=True)
    model, most = document.get("model_id"), document.get("max_concurrency")
    notes = [f"served model: {model}"] if model else []
    if most:
        notes.append(f"at most {most} requests were open at once: times follow the server's speed")
    return replace(found, notes=(*found.notes, *notes))


def _rows(document: Mapping[str, Any], names: Sequence[str], path: Path) -> list[NumberedRow]:
    lists = {name: document[name] for name in names}
    for name, values in lists.items():
        if not isinstance(values, list) or len(values) != len(lists[PROMPTS]):
            kind = f"a list of {len(values)}" if isinstance(values, list) else repr(values)[:40]
            rule = f"must be a list as long as {PROMPTS}; got {kind}"
            raise ArrivalsError(f"{path}: {name}: {rule}")
    errors = document.get(ERRORS)
    failed = errors if isinstance(errors, list) and len(errors) == len(lists[PROMPTS]) else []
    rows: list[NumberedRow] = []
    for index, values in enumerate(zip(*lists.values(), strict=True)):
        row = dict(zip(lists, values, strict=True))
        if failed and failed[index]:
            row[OUTPUTS] = 0
        rows.append((f"request {index}", row))
    return rows
