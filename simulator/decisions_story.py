"""One request's story, told from a decision log: when it waited, ran or gave way, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from controllers.core import require
from controllers.serving.decisions import DecisionRow, Reads, Why

WAITS = MappingProxyType(
    {
        Why.NO_SLOT: "every slot was taken, and no resident had used up its quantum",
        Why.NO_TOKENS: "the steps' token budget was spent",
        Why.PINNED_SHORT: "the pinned head, request {head}, needed {needs} pages and {free} were "
        "free",
        Why.HEAD_SHORT: "the head of the line, request {head}, needed {needs} pages and {free} "
        "were free",
        Why.HEAD_NO_SLOT: "no slot was free for the head of the line, request {head}, and no "
        "resident that had used up its quantum gave way to it",
        Why.NO_ADMISSION: "pages had run out in the step, so nobody was let in",
        Why.DISPLACED: "it had just given way",
    }
)
READS = MappingProxyType(
    {
        Reads.OFF: "dense, control is switched off for it",
        Reads.ASKED: "dense, as the coverage law asks",
        Reads.FLOOR: "as its own least coverage asks",
        Reads.SHORT: "dense, the context is below the sparse minimum",
        Reads.SPARSE: "sparse, as the coverage law asks",
    }
)
_NS_PER_S = 1e9


def explain(rows: Iterable[DecisionRow], request_id: int) -> str:
    """Return the story of one request, a line per stretch in which one rule applied.

    ``rows`` are those of a decision log (``read_decisions``), in order. A request that more than
    one replica served has its parts told in the order of the log. An id that never arrived raises.
    """
    stories: dict[int, _Story] = {}  # by replica
    lines: list[str] = []
    for row in rows:
        replica, mine = row["replica"], row.get("request_id") == request_id
        if mine and row["kind"] == "arrived":
            stories[replica] = _Story(request_id, lines, row)
        elif row["kind"] == "decision" and replica in stories:
            stories[replica].decided(row)
        elif mine and row["kind"] == "left":
            stories.pop(replica).left(row)
    require(bool(lines), "request_id must be in the decision log", request_id=request_id)
    for story in stories.values():
        story.flush()
        lines.append("the log ends here; it was unfinished")
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Span:
    """Successive plans in which one rule applied to the request."""

    key: tuple[str, ...]
    first: DecisionRow
    last: DecisionRow
    plans: int = 0
    tokens: int = 0
    probes: int = 0
    rankings: int = 0  # plans whose ranking it was part of
    ranks: list[tuple[int, int]] = field(default_factory=list)  # rank, of how many, where kept
    coverages: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)


class _Story:
    """The part of one request's life that one replica saw."""

    def __init__(self, request_id: int, lines: list[str], arrived: DecisionRow) -> None:
        self._id = request_id
        self._lines = lines
        self._resident = False
        self._span: _Span | None = None
        client = f", client {arrived['client']}" if arrived["client"] else ""
        lines.append(
            f"request {request_id} ({arrived['task_class']}{client}): "
            f"{arrived['prompt_tokens']} prompt tokens, at most {arrived['max_tokens']} to "
            f"generate; arrived at {_at(arrived)} on replica {arrived['replica']}"
        )

    def decided(self, row: DecisionRow) -> None:
        """Take one plan."""
        rank = next((r for r in row.get("ranked", ()) if r[1] == self._id), None)
        gone = next((p for p in row["preempted"] if p[0] == self._id), None)
        mine = next((r for r in row["rows"] if r[0] == self._id), None)
        if gone is not None:
            self._say(row, _gave_way(row, gone))
            self._resident = False
        if mine is not None:
            if mine[1] == Why.ADMITTED:
                self._say(row, _admitted(row, rank))
            self._resident = True
            self._extend(row, _key(mine), rank, mine)
        elif self._resident:
            self._extend(row, ("stalled",), rank)
        elif gone is None:
            head = row["queue"].get("head")
            self._extend(row, ("waited", row["queue"]["why"], str(head)), rank)

    def left(self, row: DecisionRow) -> None:
        """Take the departure."""
        self._say(
            row,
            f"left: {row['reason']}, {row['tokens']} tokens, {row['preemptions']} preemption(s)",
        )

    def flush(self) -> None:
        """Tell the stretch under way."""
        if self._span is not None:
            span, self._span = self._span, None
            steps = f"step {span.first['step']}"
            if span.plans > 1:
                steps = f"steps {span.first['step']} to {span.last['step']}"
            self._lines.append(f"{_at(span.first)}, {steps}: {_told(span, self._id)}")

    def _say(self, row: DecisionRow, text: str) -> None:
        self.flush()
        step = f", step {row['step']}" if "step" in row else ""
        self._lines.append(f"{_at(row)}{step}: {text}")

    def _extend(
        self,
        row: DecisionRow,
        key: tuple[str, ...],
        rank: list[Any] | None,
        mine: list[Any] | None = None,
    ) -> None:
        if self._span is None or self._span.key != key:
            self.flush()
            self._span = _Span(key, row, row)
        span = self._span
        span.last, span.plans = row, span.plans + 1
        if rank is not None:
            span.ranks.append((rank[0], row["ranked_of"]))
        # A ranking for want of pages is one of residents alone.
        span.rankings += key[0] == "waited" and key[1] != Why.NO_ADMISSION and "ranked" in row
        if mine is not None:
            span.tokens += mine[3]
            span.probes += mine[5] == Reads.PROBE
            span.coverages += [mine[4]] if mine[4] < 1.0 else []
            span.shares += mine[7:8]


def _key(mine: list[Any]) -> tuple[str, ...]:
    if mine[5] == Reads.PROMPT:
        return ("prompt",)
    reads = Reads.SPARSE if mine[5] == Reads.PROBE else mine[5]  # probes interrupt no stretch
    return ("decode", str(reads))


def _told(span: _Span, request_id: int) -> str:
    match span.key:
        case ("waited", why, _):
            return f"waited {_plans(span)}: {_waited(span, why, request_id)}{_ranks(span)}"
        case ("stalled",):
            return f"held its pages for {_plans(span)} without a token: the budget was spent"
        case ("prompt",):
            return f"computed {_tokens(span)} of prompt or lost progress, densely"
        case (_, reads):
            return f"decoded {_tokens(span)}, {READS[Reads(reads)]}{_pruned(span)}"
    raise AssertionError(span.key)


def _waited(span: _Span, why: str, request_id: int) -> str:
    queue = span.first["queue"]
    free = [row["free_pages"] for row in (span.first, span.last)]
    shown = str(free[0]) if free[0] == free[1] else f"{free[0]} to {free[1]}"
    text = WAITS[Why(why)].format(head=queue.get("head"), needs=queue.get("needs"), free=shown)
    return text.replace(f"request {request_id},", "itself,")


def _ranks(span: _Span) -> str:
    if not span.ranks:
        return "; ranked behind those the log keeps" if span.rankings else "; nobody was ranked"
    (first, of), (last, of_last) = span.ranks[0], span.ranks[-1]
    if span.ranks[0] == span.ranks[-1]:
        return f"; rank {first} of {of}"
    return f"; rank {first} of {of} at first, {last} of {of_last} at last"


def _pruned(span: _Span) -> str:
    parts = []
    if span.coverages:
        low, high = min(span.coverages), max(span.coverages)
        asked = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        parts.append(f"coverage {asked}")
    if span.shares:
        mean = sum(span.shares) / len(span.shares)
        parts.append(f"{100 * mean:.0f} % of the pages read on average")
    if span.probes:
        parts.append(f"{span.probes} dense probe(s)")
    return f" ({', '.join(parts)})" if parts else ""


def _admitted(row: DecisionRow, rank: list[Any] | None) -> str:
    for gone, why, other in row["preempted"]:
        if why == Why.DISPLACED and rank is not None and other == rank[1]:
            return f"let in, in the place of request {gone}{_place(row, rank)}"
    return f"let in{_place(row, rank)}"


def _gave_way(row: DecisionRow, gone: list[Any]) -> str:
    _, why, other = gone
    scores = {r[1]: r[2] for r in row["ranked"]}
    mine, theirs = _score(scores.get(gone[0])), _score(scores.get(other))
    if why == Why.DISPLACED:
        return (
            f"gave way: it had used up its quantum, and waiting request {other} has the higher "
            f"priority ({theirs} against {mine})"
        )
    if other == gone[0]:
        return f"gave way: it needed a page, none was free, and nobody ranked lower ({mine})"
    return (
        f"gave way: request {other} needed a page, none was free, and of the residents this one "
        f"ranked lowest ({mine} against {theirs})"
    )


def _place(row: DecisionRow, rank: list[Any] | None) -> str:
    if rank is None:
        return ""
    pinned = ", pinned since it was short of pages" if row.get("pinned") == rank[1] else ""
    return f": rank {rank[0]} of {row['ranked_of']}, priority {_score(rank[2])}{pinned}"


def _score(score: float | None) -> str:
    return "minus infinity" if score is None else f"{score:.4g}"


def _tokens(span: _Span) -> str:
    return f"{span.tokens} token{'s' if span.tokens > 1 else ''}"


def _plans(span: _Span) -> str:
    return f"{span.plans} plan{'s' if span.plans > 1 else ''}"


def _at(row: DecisionRow) -> str:
    return f"{row['now_ns'] / _NS_PER_S:.4f} s"
