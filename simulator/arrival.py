"""One request on its way to the cluster, and many of them as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, overload

import numpy as np

from controllers.core import require
from controllers.serving.request import Request

AT_ONCE = 64  # rows turned into Python numbers together
NONE = -1  # in integer columns: no such time, length or request


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request on its way to the cluster; what only the executor may know is beside it.

    A follow-up of a closed-loop session names the request it waits for in ``after``: it arrives
    ``think_ns`` after that one left, whatever way, and its ``arrival_ns`` is 0.
    """

    request: Request
    arrival_ns: int
    trace_index: int  # the recorded request that answers for it
    output_tokens: int | None = None  # true length; None: as recorded
    cancel_ns: int | None = None  # when the user gives up
    page_hashes: Sequence[int] = ()  # of its full prompt pages, to share them with equal ones
    after: int | None = None  # id of the request it waits for
    think_ns: int = 0  # from the end of that one to this arrival

    def __post_init__(self) -> None:
        require(self.arrival_ns >= 0, "arrival_ns must be >= 0", arrival_ns=self.arrival_ns)
        require(
            self.cancel_ns is None or self.cancel_ns >= self.arrival_ns,
            f"cancel_ns must be >= arrival_ns = {self.arrival_ns}",
            cancel_ns=self.cancel_ns,
        )
        if self.after is None:
            require(self.think_ns == 0, "think_ns needs a request to follow", got=self.think_ns)
            return
        require(self.think_ns >= 0, "think_ns must be >= 0", think_ns=self.think_ns)
        require(
            self.arrival_ns == 0 and self.cancel_ns is None,
            "a follow-up has arrival_ns = 0 and no cancel_ns: its clock is not known yet",
            arrival_ns=self.arrival_ns,
            cancel_ns=self.cancel_ns,
        )


# Frozen fields are written by their slots: half the time of object.__setattr__.
_OWN_NAMES = (
    "request_id", "prompt_tokens", "max_tokens", "predicted_tokens", "client", "task_class"
)  # fmt: skip
_WRITE = {field.name: getattr(Request, field.name).__set__ for field in fields(Request)}
_OWN = tuple(_WRITE[name] for name in _OWN_NAMES)
_SHARED = {name: write for name, write in _WRITE.items() if name not in _OWN_NAMES}
_ARRIVAL = tuple(getattr(Arrival, field.name).__set__ for field in fields(Arrival))


class Naming(Protocol):
    """What knows which prompts begin alike (``traces.prefixes.Prefixes``)."""

    def __len__(self) -> int: ...

    def page_names(self, row: int, prompt_tokens: int, page_tokens: int) -> Sequence[int]:
        """Return one name per full page of the prompt in ``row``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What differs between the requests of an ``ArrivalTable``; int64 ``[n]``, ``NONE`` if absent.

    Request ids are row numbers. Codes point into the name tuples of the table.
    """

    arrival_ns: np.ndarray
    trace_index: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    max_tokens: np.ndarray
    predicted_tokens: np.ndarray
    cancel_ns: np.ndarray
    client: np.ndarray  # code
    task_class: np.ndarray  # code
    after: np.ndarray
    think_ns: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.arrival_ns)
        for field in fields(self):
            values = getattr(self, field.name)
            require(len(values) == rows, f"{field.name} must have {rows} rows", rows=len(values))
        follows = self.after != NONE
        gone = self.cancel_ns != NONE
        lengths = np.minimum(self.prompt_tokens, self.max_tokens)
        rules = {
            "arrival_ns must be >= 0": self.arrival_ns < 0,
            "prompt_tokens and max_tokens must be >= 1": lengths < 1,
            "output_tokens must be >= 1": self.output_tokens < 1,
            "cancel_ns must be >= arrival_ns": gone & (self.cancel_ns < self.arrival_ns),
            "a follow-up must come after the request it follows": self.after >= np.arange(rows),
            "after must be a request or none": self.after < NONE,
            "think_ns must be >= 0, and 0 without a request to follow": (self.think_ns < 0)
            | (~follows & (self.think_ns > 0)),
            "a follow-up has arrival_ns = 0 and no cancel_ns": follows
            & ((self.arrival_ns != 0) | gone),
        }
        for rule, broken in rules.items():
            require(not broken.any(), rule, request_id=int(np.argmax(broken)))
        first_ns = self.arrival_ns[~follows]
        require(bool((np.diff(first_ns) >= 0).all()), "arrivals must be in time order", rows=rows)


class ArrivalTable(Sequence[Arrival]):
    """Arrivals as columns; an ``Arrival`` is made when it is asked for, and not kept.

    A hundred thousand requests take 9 MB instead of 40. The columns are checked as a whole, so the
    requests made from them are not checked again one by one.
    """

    __slots__ = (
        "_block",
        "_classes",
        "_clients",
        "_parts",
        "_shared",
        "_start",
        "columns",
        "page_tokens",
        "prefixes",
        "templates",
    )

    def __init__(
        self,
        columns: Columns,
        *,
        templates: dict[int, Request],
        clients: tuple[str, ...],
        classes: tuple[str, ...],
        prefixes: Naming | None = None,
        page_tokens: int = 1,
    ) -> None:
        """Take what requests share from ``templates``, one checked request per trace index."""
        missing = sorted(set(np.unique(columns.trace_index).tolist()) - set(templates))
        require(not missing, "every trace_index needs a template", missing=missing[:5])
        for name, names in (("client", clients), ("task_class", classes)):
            codes = getattr(columns, name)
            inside = not len(codes) or 0 <= codes.min() <= codes.max() < len(names)
            require(inside, f"{name} codes must lie in [0, {len(names)})", got=codes)
        require(
            prefixes is None or len(prefixes) == len(columns.arrival_ns),
            "prefixes must have a row per request",
            rows=0 if prefixes is None else len(prefixes),
        )
        require(page_tokens >= 1, "page_tokens must be >= 1", page_tokens=page_tokens)
        self.columns, self.prefixes, self.page_tokens = columns, prefixes, page_tokens
        self.templates = templates
        self._clients, self._classes = clients, classes
        self._parts = [getattr(columns, field.name) for field in fields(columns)]
        self._start, self._block = NONE, [()]
        self._shared = {
            index: tuple((write, getattr(template, name)) for name, write in _SHARED.items())
            for index, template in templates.items()
        }

    def __len__(self) -> int:
        return len(self.columns.arrival_ns)

    @overload
    def __getitem__(self, index: int) -> Arrival: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Arrival, ...]: ...

    def __getitem__(self, index: int | slice) -> Arrival | tuple[Arrival, ...]:
        rows = range(len(self))[index]
        if isinstance(rows, int):
            return self._one(rows, *self._values(rows))
        return tuple(self._one(row, *self._values(row)) for row in rows)

    def __iter__(self) -> Iterator[Arrival]:
        for row in range(len(self)):
            yield self._one(row, *self._values(row))

    def shares_with(self, other: ArrivalTable) -> bool:
        """Tell whether both tables give their requests the same beside the columns."""
        return self._shared == other._shared

    def _values(self, row: int) -> tuple[int, ...]:
        """Return a row of the columns; neighbours are read together, for they come together."""
        start = row - row % AT_ONCE
        if start != self._start:
            parts = [column[start : start + AT_ONCE].tolist() for column in self._parts]
            self._start, self._block = start, list(zip(*parts, strict=True))
        return self._block[row - start]

    def _one(
        self,
        row: int,
        arrival_ns: int,
        trace_index: int,
        prompt_tokens: int,
        output_tokens: int,
        max_tokens: int,
        predicted_tokens: int,
        cancel_ns: int,
        client: int,
        task_class: int,
        after: int,
        think_ns: int,
    ) -> Arrival:
        request = object.__new__(Request)  # columns and templates are checked already
        for write, value in self._shared[trace_index]:
            write(request, value)
        for write, value in zip(
            _OWN,
            (
                row,
                prompt_tokens,
                max_tokens,
                None if predicted_tokens == NONE else predicted_tokens,
                self._clients[client],
                self._classes[task_class],
            ),
            strict=True,
        ):
            write(request, value)
        names: Sequence[int] = ()
        if self.prefixes is not None:
            names = self.prefixes.page_names(row, prompt_tokens, self.page_tokens)
        arrival = object.__new__(Arrival)
        for write, value in zip(
            _ARRIVAL,
            (
                request,
                arrival_ns,
                trace_index,
                output_tokens,
                None if cancel_ns == NONE else cancel_ns,
                names,
                None if after == NONE else after,
                think_ns,
            ),
            strict=True,
        ):
            write(arrival, value)
        return arrival


def same_requests(one: Sequence[Arrival], other: Sequence[Arrival]) -> bool:
    """Tell whether two workloads ask for the same, answered alike, whenever it comes."""
    if one is other or len(one) != len(other):
        return one is other
    if isinstance(one, ArrivalTable) and isinstance(other, ArrivalTable):
        names = ("trace_index", "prompt_tokens", "output_tokens", "max_tokens")
        pairs = ((getattr(one.columns, n), getattr(other.columns, n)) for n in names)
        return all(np.array_equal(a, b) for a, b in pairs) and one.shares_with(other)
    return all(
        (a.request, a.trace_index, a.output_tokens) == (b.request, b.trace_index, b.output_tokens)
        for a, b in zip(one, other, strict=True)
    )
