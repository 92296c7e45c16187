"""Reads the tables of a page back, so that tests compare cells and not markup."""

from __future__ import annotations

from html.parser import HTMLParser


class _Tables(HTMLParser):
    """Collects every table as rows of cell texts; small print follows the value after a bar."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True
        elif tag == "small" and self._inside:
            self.tables[-1][-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data


def tables(html: str) -> list[list[list[str]]]:
    """Return the cell texts of every table of ``html``, by table, row and cell."""
    parser = _Tables()
    parser.feed(html)
    stripped = [[[c.strip() for c in row] for row in table] for table in parser.tables]
    return [[[" ".join(c.split()) for c in row] for row in table] for table in stripped]
