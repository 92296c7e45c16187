"""A page pool under a script, against a model that is a plain list of counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from controllers.serving.pages import PageError, PagePool
from reports.verify.property import Case
from reports.verify.serving_invariants import Broken
from reports.verify.serving_machine import Hunt, run_machine
from reports.verify.serving_script import Operation, read_script, write_script
from reports.verify.serving_shrink import shrink_script

POOL_VERBS = {
    "allocate": 1,  # pages
    "extend": 1,  # table: numbered in the order they were made
    "share": 1,  # table; makes a new one
    "free": 1,  # table
    "free_unheld": 1,  # page: a double free, which the pool must refuse
    "share_unheld": 1,
}
MOST_PAGES = 12
CHEAPER = 4  # scripts of a pool for one of a server
_OPENINGS: tuple[Case, ...] = (
    {"n_pages": 4, "script": "allocate 2; share 0; free 0; allocate 1; free 1; allocate 4"},
    {"n_pages": 4, "script": "allocate 1; allocate 1; allocate 1; free 1; extend 0; allocate 2"},
    {
        "n_pages": 2,
        "script": "allocate 1; extend 0; extend 0; free_unheld 1; free 0; free_unheld 1",
    },
)


@dataclass(slots=True)
class PoolWorld:
    """One pool and what it should say. An operation on what is not there does nothing."""

    pool: PagePool
    counts: list[int]  # references, by page
    tables: list[list[int]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    @classmethod
    def of(cls, pool_type: type[PagePool], n_pages: int) -> PoolWorld:
        """Make an empty pool."""
        return cls(pool_type(n_pages), [0] * n_pages)

    def apply(self, operation: Operation) -> None:
        """Do one operation and judge it; raise :class:`Broken`."""
        self.operations.append(operation)
        try:
            getattr(self, f"_{operation.verb}")(operation.arguments[0])
            self._judge()
        except Broken:
            raise
        except Exception as error:  # a stranger's pool may raise anything
            raise Broken({"raises": f"{type(error).__name__}: {error}"}) from error

    def _allocate(self, n: int) -> None:
        free = self._free_pages
        runs = [p for p in free if all(q in free for q in range(p, p + n))]
        pages = self.pool.allocate(n)
        expected = None if n > len(free) else free[:n]
        if expected and runs:
            expected = list(range(runs[0], runs[0] + n))
        if pages != expected:
            raise Broken({"lowest": f"allocate({n}) gave {pages}; lowest first is {expected}"})
        if pages is not None:
            self._count(pages, 1)
            self.tables.append(list(pages))

    def _extend(self, table: int) -> None:
        if table >= len(self.tables):
            return
        pages, free = self.tables[table], self._free_pages
        follows = pages[-1] + 1 if pages else None
        expected = [*pages, follows if follows in free else free[0]] if free else list(pages)
        given = self.pool.extend(pages)
        if pages != expected or given != bool(free):
            raise Broken({"lowest": f"extend gave {given} and {pages}; expected {expected}"})
        self._count(pages[-1:] if free else [], 1)

    def _share(self, table: int) -> None:
        if table < len(self.tables):
            self.pool.share(self.tables[table])
            self._count(self.tables[table], 1)
            self.tables.append(list(self.tables[table]))

    def _free(self, table: int) -> None:
        if table < len(self.tables):
            pages, self.tables[table] = self.tables[table], []
            self.pool.free(pages)
            self._count(pages, -1)

    def _free_unheld(self, page: int) -> None:
        if page < len(self.counts) and self.counts[page] == 0:
            try:
                self.pool.free([page])
            except PageError:
                return
            raise Broken({"double free": f"page {page} is free and was freed again"})

    def _share_unheld(self, page: int) -> None:
        if page < len(self.counts) and self.counts[page] == 0:
            try:
                self.pool.share([page])
            except PageError:
                return
            raise Broken({"sharing": f"page {page} is free and was shared"})

    @property
    def _free_pages(self) -> list[int]:
        return [page for page, count in enumerate(self.counts) if count == 0]

    def _count(self, pages: list[int], change: int) -> None:
        for page in pages:
            self.counts[page] += change

    def _judge(self) -> None:
        references = [self.pool.references(page) for page in range(self.pool.n_pages)]
        if references != self.counts:
            raise Broken({"pages": f"references are {references}, holders {self.counts}"})
        if self.pool.n_free != len(self._free_pages):
            raise Broken({"pages": f"n_free is {self.pool.n_free}, {len(self._free_pages)} are"})
        if self.pool.n_free + self.pool.n_held != len(self.counts):
            raise Broken({"pages": "held and free pages do not add up to the pool"})


def pool_case(world: PoolWorld) -> Case:
    """Return the case of a world, as JSON scalars."""
    return {"n_pages": len(world.counts), "script": write_script(world.operations)}


def run_pool_case(pool_type: type[PagePool], case: Case) -> dict[str, str]:
    """Run a script without hypothesis and return what broke: rule -> what was seen."""
    world = PoolWorld.of(pool_type, int(case["n_pages"]))
    try:
        for operation in read_script(case["script"], POOL_VERBS):
            world.apply(operation)
    except Broken as broken:
        return broken.breaches
    return {}


def tell_pool(operation: Operation) -> str:
    """Return one operation in plain words."""
    number = operation.arguments[0]
    return {
        "allocate": f"allocate {number} pages",
        "extend": f"extend table {number} by a page",
        "share": f"share table {number}",
        "free": f"free table {number}",
        "free_unheld": f"free page {number}, which is free",
        "share_unheld": f"share page {number}, which is free",
    }[operation.verb]


def hunt_pool(
    pool_type: type[PagePool], rng: np.random.Generator, examples: int
) -> tuple[Case, int]:
    """Let a state machine drive pools; return the worst case, made small, and how many ran."""
    hunt = Hunt()
    for case in _OPENINGS:
        hunt.note(case, failed=bool(run_pool_case(pool_type, case)))
        if hunt.failed is not None:
            break
    else:
        run_machine(_machine(pool_type, hunt), hunt, rng, CHEAPER * examples)
    if hunt.failed is None:
        return hunt.last, hunt.cases
    wanted = set(run_pool_case(pool_type, hunt.failed))

    def fails(setting: Case, operations: list[Operation]) -> bool:
        candidate = {**setting, "script": write_script(operations)}
        return bool(wanted & set(run_pool_case(pool_type, candidate)))

    setting, operations = shrink_script(
        {"n_pages": hunt.failed["n_pages"]},
        read_script(hunt.failed["script"], POOL_VERBS),
        fails,
        {"n_pages": 4},
    )
    return {**setting, "script": write_script(operations)}, hunt.cases


def _machine(pool_type: type[PagePool], hunt: Hunt) -> type[RuleBasedStateMachine]:
    class PoolMachine(RuleBasedStateMachine):
        world: PoolWorld | None = None

        @initialize(n_pages=st.integers(1, MOST_PAGES))
        def build(self, n_pages: int) -> None:
            self.world = PoolWorld.of(pool_type, n_pages)

        @rule(
            verb=st.sampled_from(sorted(POOL_VERBS)),
            number=st.integers(0, MOST_PAGES),
        )
        def do(self, verb: str, number: int) -> None:
            assert self.world is not None
            try:
                self.world.apply(Operation(verb, (number,)))
            except Broken:
                hunt.note(pool_case(self.world), failed=True)
                raise

        def teardown(self) -> None:
            if self.world is not None:
                hunt.note(pool_case(self.world))

    return PoolMachine
