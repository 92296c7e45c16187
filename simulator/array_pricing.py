"""What the steps of an array replica cost: rows of its timeline, priced as the executor prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.steplaw import StepLaw, chunk_squares, price_of
from simulator.array_life import Chunk
from simulator.array_residents import Residents
from simulator.array_timeline import DECODE, DURATION, END, GIVEN, KV, PAGES, PROMPT, SCORED

FEW_STEPS = 4  # priced one by one, which is cheaper than arrays so short


class Pricer:
    """Writes what steps read, hold and last; each call returns when the last of them ends, ns.

    ``at`` is the first step's column of the timeline, and ``now_ns`` when it begins.
    """

    def __init__(self, residents: Residents) -> None:
        self._here = residents
        law = residents.step_law
        self._price = price_of(law)
        self._skewed = law.per_skewed_kv_token_s > 0.0
        self._linear = self._price != law.step_s  # in rows and KV tokens, prompts left aside
        self._may_vanish = type(law) is not StepLaw or law.base_s < 1e-9  # a step may last 0 ns

    def decode(self, at: int, now_ns: int, steps: int) -> int:
        """Price ``steps`` steps of the residents in runs."""
        here, rows = self._here, self._here.timeline.rows
        n_decode, law = len(here.joined), here.step_law
        if not here.books.ledger.record_tokens:
            rows[GIVEN][at : at + steps] = n_decode
        if steps <= FEW_STEPS:
            kv, ends, durations, decode = rows[KV], rows[END], rows[DURATION], rows[DECODE]
            scored, price = rows[SCORED], self._price
            for i in range(at, at + steps):
                longest = self._longest(i, 1).item() if self._skewed else 0
                seconds = price(n_decode, kv.item(i), 0, 0, longest, scored.item(i))
                duration_ns = max(1, round(1e9 * seconds))
                now_ns += duration_ns
                ends[i], durations[i], decode[i] = now_ns, duration_ns, n_decode
            return now_ns
        there = slice(at, at + steps)
        if self._linear:
            each_s = rows[KV][there] * law.per_kv_token_s
            each_s += law.per_decode_s * n_decode  # in the order of ``step_s``, to the last bit
            each_s += law.base_s
        else:
            longest: Any = self._longest(at, steps) if self._skewed else 0
            each_s = law.step_s(n_decode, rows[KV][there], 0, 0, longest, rows[SCORED][there])
        durations = np.rint(1e9 * each_s).astype(np.int64)
        if self._may_vanish:
            np.maximum(durations, 1, out=durations)
        rows[DURATION][there] = durations
        durations[0] += now_ns
        np.cumsum(durations, out=rows[END][there])
        rows[DECODE][there] = n_decode
        return rows[END].item(at + steps - 1)

    def full(self, at: int, now_ns: int, chunk: Chunk, steps: int) -> int:
        """Price ``steps`` steps that each compute a chunk like ``chunk``."""
        here, rows, price = self._here, self._here.timeline.rows, self._price
        n_decode, (life, n_tokens, _) = len(here.joined), chunk
        longest = self._longest(at, steps).tolist() if self._skewed else [0] * steps
        start = life.sequence.computed
        there = slice(at, at + steps)
        read = zip(rows[KV][there].tolist(), longest, rows[SCORED][there].tolist(), strict=True)
        ends, durations = rows[END], rows[DURATION]
        for i, (kv, most, scored) in enumerate(read, at):
            squares = chunk_squares(start, n_tokens)
            duration_ns = max(1, round(1e9 * price(n_decode, kv, n_tokens, squares, most, scored)))
            now_ns += duration_ns
            start += n_tokens
            ends[i], durations[i] = now_ns, duration_ns
        rows[DECODE][there] = rows[GIVEN][there] = n_decode
        rows[PROMPT][there] = n_tokens
        rows[PAGES][there] += here.prefill_pages
        return now_ns

    def mixed(self, at: int, now_ns: int, chunks: Sequence[Chunk]) -> int:
        """Price one step with rows outside of runs."""
        here, timeline = self._here, self._here.timeline
        rows, cells = timeline.rows, timeline.cells
        n_decode, prompt_tokens, squares = len(here.joined), 0, 0
        longest = self._longest(at, 1).item() if self._skewed and n_decode else 0
        rows[GIVEN][at] = n_decode
        for life, n_tokens, decoding in chunks:
            start = life.sequence.computed
            if n_tokens == 1 and life.sequence.pending == 1:  # priced like a decode row
                n_decode += 1
                if decoding:
                    reads = here.script(life)[:PAGES, life.sequence.generated]
                else:
                    units = here.limits.pages_for(start + 1) * here.units_per_page
                    reads = np.array([start + 1, units, units, 0])
                cells[:PAGES, at] += reads
                longest = max(longest, int(reads[KV]))
            else:
                prompt_tokens += n_tokens
                squares += chunk_squares(start, n_tokens)
        kv_tokens, scored = rows[KV].item(at), rows[SCORED].item(at)
        seconds = self._price(n_decode, kv_tokens, prompt_tokens, squares, longest, scored)
        duration_ns = max(1, round(1e9 * seconds))
        rows[DECODE][at], rows[PROMPT][at] = n_decode, prompt_tokens
        rows[DURATION][at], rows[END][at] = duration_ns, now_ns + duration_ns
        rows[PAGES][at] += here.prefill_pages
        return now_ns + duration_ns

    def _longest(self, at: int, steps: int) -> np.ndarray:
        """Return the most KV tokens that one resident reads in each step, ``[steps]``."""
        here = self._here
        if here.laws is not None:
            return np.array([here.laws.longest])
        step = at + here.timeline.base
        longest = np.zeros(steps, np.int64)
        for life in here.joined.values():
            assert life.block is not None, "a run without a script"
            token = life.run_token + step - life.run_step
            np.maximum(longest, life.block[KV, token : token + steps], out=longest)
        return longest
