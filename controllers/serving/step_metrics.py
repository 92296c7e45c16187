"""What the steps of a run add up to, from step rows or from a ledger's totals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.serving.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSums:
    """Sums over the steps that began at ``from_ns`` or later."""

    n: int
    busy_ns: int  # time in steps
    end_ns: int  # when the last one ended; 0 without any
    decode_rows: int
    decode_row_ns: int  # decode rows times duration, summed
    page_units_read: int
    page_units_dense: int
    pages_scored: int
    held_ns: np.ndarray  # busy time with 0, 1, 2, ... pages held on a server

    @classmethod
    def of(cls, ledger: Ledger, from_ns: int = 0) -> StepSums:
        """Sum step rows where they are kept, else take the totals, whose cut must be the same."""
        return _of_rows(ledger, from_ns) if ledger.record_steps else _of_totals(ledger, from_ns)


def _of_rows(ledger: Ledger, from_ns: int) -> StepSums:
    kept = ledger.steps["now_ns"] >= from_ns
    columns = {name: ledger.steps[name][kept] for name in ledger.steps.columns}
    duration, held = columns["duration_ns"], columns["pages_held"]
    times = np.zeros(int(held.max(initial=-1)) + 1, np.int64)
    np.add.at(times, held, duration)
    return StepSums(
        n=len(duration),
        busy_ns=int(duration.sum()),
        end_ns=int((columns["now_ns"] + duration).max(initial=0)),
        decode_rows=int(columns["n_decode"].sum()),
        decode_row_ns=int((columns["n_decode"] * duration).sum()),
        page_units_read=int(columns["page_units_read"].sum()),
        page_units_dense=int(columns["page_units_dense"].sum()),
        pages_scored=int(columns["pages_scored"].sum()),
        held_ns=times,
    )


def _of_totals(ledger: Ledger, from_ns: int) -> StepSums:
    totals = ledger.totals
    require(
        from_ns == totals.from_ns,
        f"a ledger without step rows is cut where its totals begin, {totals.from_ns} ns",
        warmup_ns=from_ns,
    )
    return StepSums(
        n=totals.n_steps,
        busy_ns=totals.sum("duration_ns"),
        end_ns=totals.end_ns,
        decode_rows=totals.sum("n_decode"),
        decode_row_ns=totals.decode_row_ns,
        page_units_read=totals.sum("page_units_read"),
        page_units_dense=totals.sum("page_units_dense"),
        pages_scored=totals.sum("pages_scored"),
        held_ns=totals.held_ns,
    )
