"""What a trace says about itself: metadata and request table, as JSON in the Parquet footer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from traces.columns import TraceError
from traces.recorded import RecordedRequest
from traces.schema import METADATA_KEYS, SCHEMA_NAME, SCHEMA_VERSION

DIGEST_KEY = (
    "metadata_sha256"  # Parquet checksums pages, not its footer; this covers our part of it
)
WRITER_KEYS = ("schema", "version", "rows", "requests")
RECORDER_KEYS = tuple(key for key in METADATA_KEYS if key not in WRITER_KEYS)
FINISH_REASONS = ("stop", "length")


def request_from(row: Mapping[str, Any], index: int, path: object) -> RecordedRequest:
    """Return ``row`` as the record of request ``index``, or raise naming the field."""
    for field in fields(RecordedRequest):
        want = {"int": int, "str": str, "float": (int, float)}[str(field.type)]
        value = row.get(field.name)
        if not isinstance(value, want) or isinstance(value, bool):
            rule = f"must be {field.type}; got {value!r}"
            raise TraceError(path, f"requests[{index}].{field.name}", rule)
    unknown = sorted(set(row) - {field.name for field in fields(RecordedRequest)})
    record = RecordedRequest(**{key: value for key, value in row.items() if key not in unknown})
    rules = {
        "request": (record.request == index, f"must be {index}, its place in the table"),
        "prompt_tokens": (record.prompt_tokens >= 1, "must be >= 1"),
        "output_tokens": (record.output_tokens >= 0, "must be >= 0"),
        "finish_reason": (record.finish_reason in FINISH_REASONS, f"must be in {FINISH_REASONS}"),
        "temperature": (0 <= record.temperature < math.inf, "must be finite and >= 0"),
    }
    for name in unknown:
        raise TraceError(path, f"requests[{index}].{name}", "is not a request field")
    for name, (holds, rule) in rules.items():
        if not holds:
            got = getattr(record, name)
            raise TraceError(path, f"requests[{index}].{name}", f"{rule}; got {got!r}")
    return record


def check_metadata(metadata: Mapping[str, Any], path: object) -> None:
    """Raise unless the recorder's part of the metadata is complete and in range."""
    for key in RECORDER_KEYS:
        if key not in metadata:
            raise TraceError(path, key, "metadata key is missing")
    for key in ("page_tokens", "layers", "kv_heads", "page_unit_bytes"):
        value = metadata[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TraceError(path, key, f"must be an integer >= 1; got {value!r}")
    t_cal = metadata["t_cal"]
    if not isinstance(t_cal, int | float) or isinstance(t_cal, bool) or not 0 < t_cal < math.inf:
        raise TraceError(path, "t_cal", f"must be finite and > 0; got {t_cal!r}")


def encode(
    metadata: Mapping[str, Any], requests: list[RecordedRequest], rows: int
) -> dict[str, str]:
    """Return the footer's key-value pairs: one JSON text per key, and their digest."""
    own = {
        "schema": SCHEMA_NAME,
        "version": SCHEMA_VERSION,
        "rows": rows,
        "requests": [asdict(request) for request in requests],
    }
    merged = {**metadata, **own}
    texts = {key: json.dumps(merged[key], sort_keys=True, allow_nan=False) for key in METADATA_KEYS}
    return {**texts, DIGEST_KEY: digest(texts)}


def decode(
    pairs: Mapping[bytes, bytes], path: object
) -> tuple[dict[str, Any], tuple[RecordedRequest, ...]]:
    """Return metadata (without the request table) and the request records of a footer."""
    found = {}
    for key in ("schema", "version"):  # first: a stranger's file gets the right message
        found[key] = _json(pairs, key, path)
    if found["schema"] != SCHEMA_NAME:
        raise TraceError(path, "schema", f"must be {SCHEMA_NAME!r}; got {found['schema']!r}")
    if found["version"] != SCHEMA_VERSION:
        raise TraceError(path, "version", f"must be {SCHEMA_VERSION}; got {found['version']!r}")
    metadata = {key: _json(pairs, key, path) for key in METADATA_KEYS}
    texts = {key: pairs[key.encode()].decode() for key in METADATA_KEYS}
    stated = pairs.get(DIGEST_KEY.encode(), b"").decode(errors="replace")
    if stated != digest(texts):
        raise TraceError(path, DIGEST_KEY, f"does not match the metadata; got {stated!r}")
    check_metadata(metadata, path)
    rows = metadata.pop("requests")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TraceError(path, "requests", "must be a list of objects")
    return metadata, tuple(request_from(row, i, path) for i, row in enumerate(rows))


def digest(texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of the metadata texts, in key order."""
    lines = "\n".join(f"{key}={texts[key]}" for key in sorted(texts))
    return hashlib.sha256(lines.encode()).hexdigest()


def _json(pairs: Mapping[bytes, bytes], key: str, path: object) -> Any:
    if key.encode() not in pairs:
        raise TraceError(path, key, "metadata key is missing")
    try:
        return json.loads(pairs[key.encode()])
    except ValueError as error:
        raise TraceError(path, key, f"must be JSON; {error}") from error
