"""One ledger out of several replicas' ledgers, so that metrics see the cluster as one server."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from controllers.serving.ledger import Ledger, Table


def merged(ledgers: Sequence[Ledger]) -> Ledger:
    """Return the rows of ``ledgers`` in one; steps by start, requests and tokens by replica.

    A service gap counts steps of the request's own replica, so the wait that is still open at the
    end is closed here, before the step counts are added up. The inputs stay as they are.
    """
    whole = Ledger(record_tokens=all(ledger.record_tokens for ledger in ledgers))
    whole.step_count = sum(ledger.step_count for ledger in ledgers)
    for ledger in ledgers:
        offset = len(whole.reasons)
        whole.row_of.update({key: row + offset for key, row in ledger.row_of.items()})
        whole.reasons.extend(ledger.reasons)
        _extend(whole.steps, ledger.steps)
        _extend(whole.tokens, ledger.tokens)
        _extend(whole.requests, ledger.requests)
        gaps, last = (
            whole.requests.columns[name] for name in ("max_service_gap_steps", "last_service_step")
        )
        for row, reason in enumerate(ledger.reasons, start=offset):
            if reason is None:
                gaps[row] = max(gaps[row], ledger.step_count - last[row])
                last[row] = whole.step_count
    order = np.argsort(whole.steps["now_ns"], kind="stable")
    for name, column in whole.steps.columns.items():
        whole.steps.columns[name] = array(column.typecode, np.array(column)[order].tolist())
    return whole


def _extend(whole: Table, part: Table) -> None:
    for name, column in whole.columns.items():
        column.extend(part.columns[name])
