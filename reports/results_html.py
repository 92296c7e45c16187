"""Any committed measurement as HTML: scalars as a list, rows as a table; nothing is interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

LONGEST = 24  # table rows shown; the file has them all


def result_html(value: Any) -> str:
    """Return JSON values as markup: nested objects become dotted names."""
    if not isinstance(value, Mapping):
        return f"<p>{escape(_text(value))}</p>"
    scalars, tables = [], []
    for name, entry in _flat(value):
        if isinstance(entry, list) and entry and all(isinstance(e, Mapping) for e in entry):
            tables.append(_table(name, entry))
        else:
            scalars.append(f"<li>{escape(name)}: {escape(_text(entry))}</li>")
    head = f"<ul class=notes>{''.join(scalars)}</ul>" if scalars else ""
    return "".join(tables) + head


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found += _flat(entry, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", entry))
    return found


def _table(name: str, rows: list[Mapping[str, Any]]) -> str:
    flat = [dict(_flat(row)) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    heads = "".join(f"<th>{escape(key)}</th>" for key in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_text(row.get(key)))}</td>' for key in names)}</tr>"
        for row in flat[:LONGEST]
    )
    more = f" (first {LONGEST} of {len(rows)})" if len(rows) > LONGEST else ""
    return (
        f"<table><caption>{escape(name + more)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_text(entry) for entry in value[:LONGEST])
    return str(value)
