"""Responses of OpenAI-style servers with top-k log-probabilities, as traces of entropy intervals.

Read are responses of ``/v1/chat/completions`` (``logprobs`` and ``top_logprobs`` asked for) and of
``/v1/completions`` (``logprobs``): one JSON object, a list of them, one per line, or the lines of a
batch result (``response.body``). Streamed chunks are not. vLLM reports the model's own
distribution, at T = 1 and before penalties (``--logprobs-mode raw_logprobs``, its default), or
with ``processed_logprobs`` the one sampled from: say which. Its modes that report logits are no
input: a value above 0 is refused.

The largest k may come with the sampled token as one more entry, or in place of the k-th. So where
the sampled token is the least likely entry, the next one bounds all other tokens; that is never
too small a bound. Completions name tokens by text, and two tokens of one text lose an entry: then
nothing bounds the others, unless tokens are named by id (``--return-tokens-as-token-ids``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traces.arrivals import ArrivalsError
from traces.import_files import is_parquet
from traces.import_text import json_row, open_text, whole_document
from traces.intervals import IntervalRequest, IntervalTrace
from traces.topk import entropy_interval

TOKEN_ID = "token_id:"
ABOVE_ONE = 1e-6  # a log-probability may round past 0 by so much


@dataclass(frozen=True, slots=True)
class Known:
    """What a response says of one token."""

    sampled: float  # ln p of the token it has
    entries: list[float]  # ln p of all that are known, the sampled one among them
    bound: float  # ln of the most that another token can have


def is_responses(path: Path) -> bool:
    """Return whether ``path`` holds responses, by its first object; False if it cannot be read."""
    try:
        if is_parquet(path):
            return False
        with open_text(path) as file:
            text = file.readline()
            found = json.loads(whole_document(file, text))
    except (OSError, EOFError, ValueError, RecursionError):
        return False
    head = found[0] if isinstance(found, list) and found else found
    return isinstance(head, dict) and ("choices" in head or "response" in head)


def read_responses(
    path: Path, *, vocabulary: int, processed: bool = False, licence: str = ""
) -> IntervalTrace:
    """Return the entropy intervals of every choice of every response in ``path``.

    Raises ``ArrivalsError``, one line naming file, line or choice, field and value.
    """
    requests: list[IntervalRequest] = []
    known: list[Known] = []
    models: set[str] = set()
    try:
        for where, body in _bodies(path):
            models.add(str(body.get("model", "")))
            for choice, tokens in _choices(body, where):
                requests.append(_request(body, choice, len(tokens), len(requests)))
                known.extend(tokens)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error
    if not known:
        raise ArrivalsError(f"{path}: holds no token with log-probabilities")
    if len(models) > 1:
        raise ArrivalsError(f"{path}: model: must be one; got {sorted(models)}")
    width = max(len(token.entries) for token in known)
    entries = np.full((len(known), width), np.nan)
    for row, token in enumerate(known):
        entries[row, : len(token.entries)] = token.entries
    try:
        low, high = entropy_interval(entries, np.array([t.bound for t in known]), vocabulary)
        return IntervalTrace(
            requests=tuple(requests),
            h_low=low,
            h_high=high,
            surprisal=np.maximum([-token.sampled for token in known], 0.0),
            top_mass=np.minimum(np.nansum(np.exp(entries), axis=1), 1.0),
            model=models.pop(),
            vocabulary=vocabulary,
            processed=processed,
            source=f"vllm-logprobs:{path.name}",
            licence=licence,
        )
    except ValueError as error:
        raise ArrivalsError(f"{path}: {error}") from None


def _bodies(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open_text(path) as file:
        first = file.readline()
        text = whole_document(file, first)
        if text.lstrip().startswith("["):
            try:
                documents = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ArrivalsError(f"{path}: must be JSON: {error}") from error
            for index, found in enumerate(documents):
                yield _body(found, f"{path}: response {index}")
            return
        yield _body(json_row(text, path, 1), f"{path}:1")
        if text is not first and text != first:
            return
        for line, more in enumerate(file, start=2):
            if more.strip():
                yield _body(json_row(more, path, line), f"{path}:{line}")


def _body(found: Any, where: str) -> tuple[str, dict[str, Any]]:
    body = found.get("response", found) if isinstance(found, dict) else found
    body = body.get("body", body) if isinstance(body, dict) else body
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise ArrivalsError(f"{where}: choices: must be a list; got {str(found)[:40]!r}")
    return where, body


def _choices(body: dict[str, Any], where: str) -> Iterator[tuple[dict[str, Any], list[Known]]]:
    for index, choice in enumerate(body["choices"]):
        place = f"{where}: choices[{index}].logprobs"
        found = choice.get("logprobs") if isinstance(choice, dict) else None
        if not isinstance(found, dict):
            raise ArrivalsError(f"{place}: must be there: ask the server for them; got {found!r}")
        try:
            tokens = _chat(found) if "content" in found else _completion(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArrivalsError(f"{place}: cannot be read: {error!r}") from None
        yield choice, tokens


def _chat(found: dict[str, Any]) -> list[Known]:
    tokens = []
    for item in found["content"] or []:
        entries = [(entry["token"], _log_p(entry["logprob"])) for entry in item["top_logprobs"]]
        tokens.append(_known((item["token"], _log_p(item["logprob"])), entries, unique=True))
    return tokens


def _completion(found: dict[str, Any]) -> list[Known]:
    tokens = []
    if found["top_logprobs"] is None:
        raise ValueError("top_logprobs: null: ask for logprobs=k with k >= 1")
    for name, log_p, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        if log_p is None:  # the first token of an echoed prompt
            raise ValueError("a token has none: ask without echo, prompts are not generated")
        entries = [(other, _log_p(value)) for other, value in top.items()]
        unique = all(other.startswith(TOKEN_ID) for other, _ in entries)
        tokens.append(_known((name, _log_p(log_p)), entries, unique=unique))
    return tokens


def _known(sampled: tuple[str, float], entries: list[tuple[str, float]], *, unique: bool) -> Known:
    values = [log_p for _, log_p in entries]
    inside = sampled in entries
    if not inside:
        bound = min(values, default=0.0)
        values = [*values, sampled[1]]
    elif sampled[1] > min(values):
        bound = min(values)
    else:
        values_without = values.copy()
        values_without.remove(sampled[1])
        bound = min(values_without, default=0.0)
    return Known(sampled[1], values, bound if unique else 0.0)


def _log_p(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value <= ABOVE_ONE:
        raise ValueError(f"a log-probability must be a number <= 0; got {value!r}")
    return min(float(value), 0.0)


def _request(
    body: dict[str, Any], choice: dict[str, Any], tokens: int, index: int
) -> IntervalRequest:
    usage = body.get("usage")
    prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return IntervalRequest(
        request=index,
        name=str(body.get("id", "")),
        prompt_tokens=prompt if isinstance(prompt, int) else None,
        tokens=tokens,
        finish_reason=str(choice.get("finish_reason") or "unknown"),
    )
