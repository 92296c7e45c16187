"""An executor with a cache of pages: it knows what each of them holds, and refuses wrong reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from controllers.serving import eviction
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Plan, Result, Row
from controllers.serving.pages import HOLE
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request
from reports.verify.fake_executor import PAGE_TOKENS, FakeExecutor, RowRefused, uniform
from tests.serving.worlds import World

FAMILIES = 3  # prompts of one family begin alike


def prompt_of(request: Request, family: int) -> list[int]:
    """Return prompt tokens: the family's for three quarters, then the request's own."""
    common = request.prompt_tokens * 3 // 4
    own = request.prompt_tokens - common
    return [1000 * (1 + family) + i for i in range(common)] + [request.request_id] * own


@dataclass
class PagedExecutor(FakeExecutor):
    """Writes (position, token and everything before it) to pages, and checks what rows read."""

    prompts: dict[int, list[int]] = field(default_factory=dict)
    content: dict[int, list[int]] = field(default_factory=dict)  # page -> what its slots hold
    read_back: int = 0  # tokens that a first row found in pages it did not write

    def execute(self, plan: Plan, pages: dict[int, list[int]]) -> Result:
        """Run the step, and give up the pages with the lowest made-up scores."""
        evicted = {}
        for row in plan.rows:
            if row.evict:
                table = pages[row.request_id]
                scores = [uniform(row.request_id, i, plan.step) for i in range(len(table))]
                evicted[row.request_id] = eviction.choose(scores, table, row)
        return replace(super().execute(plan, pages), evicted=evicted)

    def _take(self, row: Row, pages: dict[int, list[int]]) -> None:
        table, end = pages[row.request_id], row.start + row.n_tokens
        tokens = self.prompts[row.request_id] + self.streams.get(row.request_id, [])
        if row.n_tokens < 1 or end > len(tokens) or row.samples != (end == len(tokens)):
            raise RowRefused(f"request {row.request_id} has {len(tokens)} tokens; the row is {row}")
        if len(table) * PAGE_TOKENS < end:
            raise RowRefused(f"request {row.request_id} has no page for token {end - 1}")
        if row.request_id not in self.cached:
            self.read_back += row.start
        kv = 0
        for position, token in enumerate(tokens[:end]):
            kv = hash((kv, token))  # KV depends on its token and on all before it
            page, slot = table[position // PAGE_TOKENS], position % PAGE_TOKENS
            if position >= row.start:
                self._write(page, slot, kv)
            elif page != HOLE and self.content[page][slot] != kv:
                raise RowRefused(f"token {position} of {row} is not what page {page} holds")
        self.cached[row.request_id] = end

    def _write(self, page: int, slot: int, kv: int) -> None:
        """Store one token; what lay behind it was left by somebody else."""
        before = self.content.get(page, [0] * PAGE_TOKENS)[:slot]
        self.content[page] = [*before, kv, *[0] * (PAGE_TOKENS - slot - 1)]


class SharingWorld(World):
    """A world whose requests hash their prompts."""

    def send(self, request: Request, family: int = 0, *, hashed: bool = True) -> None:
        """Submit a request whose prompt begins as those of its family do."""
        assert isinstance(self.executor, PagedExecutor)
        tokens = prompt_of(request, family)
        self.executor.prompts[request.request_id] = tokens
        self.executor.requests[request.request_id] = request
        if self.oracle is not None:
            self.oracle[request.request_id] = self.executor.length_of(request)
        hashes = page_hashes(tokens, PAGE_TOKENS, "kv") if hashed else ()
        self.loop.submit(request, self.now_ns, page_hashes=hashes)


def sharing(world: World) -> SharingWorld:
    """Give a world's loop a paged executor."""
    old = world.executor
    paged = PagedExecutor(
        seed=old.seed, stop_share=old.stop_share, fail_share=old.fail_share, law=old.law
    )
    return SharingWorld(world.loop, paged, world.now_ns, world.oracle)


def held(loop: ServingLoop) -> int:
    """Pages that somebody holds."""
    return loop.scheduler.pool.n_held
