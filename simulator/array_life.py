"""One request on an array replica: a line on a timeline until somebody asks for its sequence."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from controllers.serving.ledger import NEVER
from controllers.serving.request import Sequence
from controllers.serving.sensors import prefill_row_s
from controllers.steplaw import StepLaw
from simulator.array_parts import PageCount
from simulator.scan import Trajectory
from simulator.server import TRANSFERRED, Window


class TrajectorySource(Protocol):
    """Who knows what laws do to every token of a request."""

    def of(self, request_id: int) -> Trajectory:
        """Return the trajectory of a request."""
        ...

    def disable(self, request_id: int, first_token: int) -> Trajectory:
        """Return it with control switched off from ``first_token`` on."""
        ...

    def forget(self, request_id: int) -> None:
        """Drop a request that is over."""
        ...

    def settle(self, request_id: int, stop: int) -> None:
        """Have the tokens before ``stop``, which it has been given, in its trajectory."""
        ...


class Contexts(NamedTuple):
    """What a dense row reads and holds, by length of context, ``[2, lengths]`` each."""

    reads: np.ndarray  # float64, KV tokens and page units
    held: np.ndarray  # int64, page units and pages


class Chunk(NamedTuple):
    """A row outside of runs: prompt tokens, recomputed tokens, or the one that ends them."""

    life: Life
    n_tokens: int
    decoding: bool  # a decode row: one token was left to recompute

    @property
    def spare(self) -> int:
        """Chunks like this one that can follow each other before a token is sampled, or 0."""
        return 0 if self.decoding else (self.life.sequence.pending - 1) // self.n_tokens


class Life:
    """One request on one server, from submission to its end here.

    A *run* is what it does between two admissions once it samples: token ``run_token`` in step
    ``run_step`` and one more in each later step. ``run_step`` is negative outside of runs.
    """

    __slots__ = (
        "block", "booked", "cap", "chunks", "collapse", "coverage_rows", "coverage_sum", "end",
        "first", "first_ns", "first_token_ns", "gap_ns", "gap_steps", "held", "imported", "last",
        "last_ns", "last_step", "least", "order", "prompt", "reason", "request_id", "row",
        "run_coverage", "run_step", "run_token", "sequence", "served", "token_ns", "trajectory",
    )  # fmt: skip

    def __init__(self, sequence: Sequence, window: Window | None, row: int, steps_run: int) -> None:
        request = sequence.request
        self.first = first = 0 if window is None else window.first
        self.sequence = sequence
        self.request_id = request.request_id
        self.prompt = request.prompt_tokens
        self.last = None if window is None else window.last
        self.cap = request.max_tokens if self.last is None else min(request.max_tokens, self.last)
        self.imported = window is not None and window.kv_imported  # until its first admission
        self.trajectory: Trajectory | None = None  # once it has sampled
        self.block: np.ndarray | None = None  # int64 [5, tokens]: what each token adds to a step
        self.least = 1.0  # lowest coverage of its trajectory
        self.end = 0  # generated tokens at which it leaves; known with the trajectory
        self.reason = ""  # why it leaves then
        self.order = -1  # of its admission
        self.held = 0  # pages while it prefills
        self.run_step = NEVER
        self.run_token = first
        self.run_coverage = 1.0  # of the row that gave the first token of the run
        self.booked = first  # tokens written to the ledger
        self.served = first  # tokens whose decode rows are in ``sequence.served_s``
        self.chunks: list[tuple[int, int]] = []  # rows outside of runs that are not: see serve
        self.collapse: tuple[np.ndarray, np.ndarray | None] | None = None
        self.row = row  # of the ledger
        self.first_ns = self.first_token_ns = self.token_ns = NEVER
        self.last_step, self.gap_steps = steps_run, 0
        self.last_ns, self.gap_ns = sequence.arrival_ns, 0
        self.coverage_sum, self.coverage_rows = 0.0, 0
        sequence.generated = first

    @property
    def outstanding(self) -> int:
        """Tokens left to compute if it ran to its cap, of an up-to-date sequence."""
        pending = 1 if self.imported else self.sequence.pending
        return pending + self.cap - self.sequence.generated

    def script(self, trajectory: Trajectory, contexts: Contexts) -> np.ndarray:
        """Fix what is to come and return the block."""
        self.trajectory = trajectory
        n = trajectory.n_tokens
        self.end = n if self.last is None else min(n, self.last)
        self.reason = TRANSFERRED if self.end < n else "stop" if trajectory.stops else "length"
        first, last = self.prompt, self.prompt + self.end
        reads, held = contexts.reads[:, first:last], contexts.held[:, first:last]
        self.least = trajectory.least
        self.block = block = np.empty((5, self.end), np.int64)
        block[2::2] = held
        if self.least >= 1.0:
            block[:2] = reads
            block[3] = 0
        else:
            kept = reads * trajectory.share[: self.end]
            block[:2] = np.rint(kept, out=kept)
            sparse = trajectory.coverage[: self.end] < 1.0
            np.multiply(held[0], sparse, out=block[3])
        return block

    def sync(self, step: int, page_tokens: int, pool: PageCount, *, grown: bool) -> None:
        """Bring the sequence of a life in a run to its state in the plan of ``step``.

        ``grown``: decode rows already have the page that they need for it.
        """
        sequence = self.sequence
        given = step - self.run_step
        sequence.generated = self.run_token + given
        sequence.computed = self.prompt + sequence.generated - 1
        sequence.quantum_used = given
        # Admission took a page for the first token of the run, and one for that after it.
        covered = sequence.computed + (grown or given == 1)
        missing = -(-covered // page_tokens) - len(sequence.pages)
        sequence.pages.extend(pool.numbers(missing))

    def serve(self, law: StepLaw) -> None:
        """Add the rows since the last call to the attained service, one by one as the loop does."""
        sequence, total = self.sequence, self.sequence.served_s
        decode_s = law.base_s + law.per_decode_s
        for computed, n_tokens in self.chunks:
            alone = n_tokens > 0
            total += (
                prefill_row_s(law, computed, n_tokens)
                if alone
                else (decode_s + law.per_kv_token_s * computed)
            )
        self.chunks.clear()
        first, last = max(self.served, self.run_token + 1), sequence.generated
        if self.run_step >= 0 and last > first:
            held = np.arange(self.prompt + first - 1, self.prompt + last - 1)
            rows = decode_s + law.per_kv_token_s * held
            total = float(np.cumsum(np.concatenate(([total], rows)))[-1])
        self.served = last
        sequence.served_s = total

    def collapse_after(self, generated: int) -> tuple[float, int]:
        """Return the sum of falls of H over the finite ones of ``generated`` tokens; how many."""
        if not generated:
            return 0.0, 0
        if self.collapse is None:
            assert self.trajectory is not None, "no token yet"
            h = self.trajectory.h_cal.astype(np.float64)
            finite, seen = np.isfinite(h), None
            if not np.logical_and.reduce(finite):
                h, seen = h[finite], np.cumsum(finite)
            fall = h[:-1] - h[1:]
            self.collapse = np.maximum(fall, 0.0, out=fall).cumsum(), seen
        total, seen = self.collapse
        n = generated if seen is None else seen.item(generated - 1)
        return (total.item(n - 2) if n > 1 else 0.0), n
