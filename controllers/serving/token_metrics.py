"""Sums over the tokens of each request: entropies, likelihood, clips, and gaps between tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.serving.ledger import Ledger
from controllers.serving.open_sums import CLIP_TOLERANCE
from controllers.serving.summary import NS_PER_S, Metric, Summary, gap_summary, ratio, summary

_SUMS = ("tau", "tau_cal", "net", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSums:
    """One entry per request row of the ledger, ``[R]``; nats. Without token rows, ended ones only.

    ``tau`` sums the falls of H at the applied temperature (the paper's, which temperature
    inflates), ``tau_cal`` those at the calibration temperature, ``net`` is first minus last H.
    """

    tokens: np.ndarray
    tau: np.ndarray
    tau_cal: np.ndarray
    net: np.ndarray
    nll: np.ndarray
    on_bound: np.ndarray  # commands on a bound of ln T
    gaps_ns: np.ndarray  # between successive tokens of a request; empty without token rows
    gap_row: np.ndarray  # the request row of each gap

    @classmethod
    def of(cls, ledger: Ledger, bounds: list[float]) -> TokenSums:
        """Sum the token rows, or take the sums of a ledger that keeps none."""
        return _of_rows(ledger, bounds) if ledger.record_tokens else _of_totals(ledger)

    def metrics(self, kept: np.ndarray) -> dict[str, Metric]:
        """Return entropies over the requests ``kept``, bool ``[R]``, and the same per token."""
        tokens = int(self.tokens[kept].sum())
        names = ("tau_nats", "tau_cal_nats", "entropy_net_nats", "nll_nats")
        found: dict[str, Metric] = dict.fromkeys(names)
        if tokens:
            for name, column in zip(names, _SUMS, strict=True):
                found[name] = float(getattr(self, column)[kept].sum()) + 0.0
        for name in ("tau_nats", "tau_cal_nats", "nll_nats"):
            whole = found[name]
            assert not isinstance(whole, dict)
            found[f"{name}_per_token"] = ratio(whole, tokens)
        return found

    def clip_share(self, kept: np.ndarray) -> float | None:
        """Return the share of commands on a bound."""
        return ratio(float(self.on_bound[kept].sum()), float(self.tokens[kept].sum()))

    def itl_s(self, ledger: Ledger, kept: np.ndarray) -> Summary:
        """Return gaps between tokens; without token rows of the whole run, and to half a bin."""
        if not ledger.record_tokens:
            return gap_summary(ledger.totals.gaps)
        return summary(self.gaps_ns[kept[self.gap_row]] / NS_PER_S)


def _of_rows(ledger: Ledger, bounds: list[float]) -> TokenSums:
    n = len(ledger.requests)
    ids = ledger.tokens["request_id"]
    order = np.argsort(ids, kind="stable")  # by request, then time
    ids = ids[order]
    row = _rows(ledger, ids)
    same = np.diff(ids) == 0
    later = row[1:][same]
    changes = {
        name: np.diff(ledger.tokens[name][order])[same].astype(np.float64)
        for name in ("h_applied", "h_cal")
    }
    command, surprisal = ledger.tokens["command"][order], ledger.tokens["surprisal"][order]
    near = np.zeros(len(command), bool)
    for bound in bounds:
        near |= np.abs(command - bound) <= CLIP_TOLERANCE
    return TokenSums(
        tokens=np.bincount(row, minlength=n),
        tau=_sum(later, -np.minimum(changes["h_applied"], 0.0), n),
        tau_cal=_sum(later, -np.minimum(changes["h_cal"], 0.0), n),
        net=_sum(later, -changes["h_cal"], n),
        nll=_sum(row, surprisal, n),
        on_bound=np.bincount(row[near], minlength=n),
        gaps_ns=np.diff(ledger.tokens["now_ns"][order])[same],
        gap_row=later,
    )


def _of_totals(ledger: Ledger) -> TokenSums:
    n = len(ledger.requests)
    table = ledger.totals.requests
    row = _rows(ledger, table["request_id"])
    nothing = np.zeros(0, np.int64)
    return TokenSums(
        tokens=_sum(row, table["tokens"], n).astype(np.int64),
        on_bound=_sum(row, table["on_bound"], n).astype(np.int64),
        gaps_ns=nothing,
        gap_row=nothing,
        **{name: _sum(row, table[name], n) for name in _SUMS},
    )


def _sum(row: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(row, np.where(np.isfinite(values), values, 0.0), minlength=n)


def _rows(ledger: Ledger, ids: np.ndarray) -> np.ndarray:
    """Return the request row of each id."""
    known = ledger.requests["request_id"]
    order = np.argsort(known, kind="stable")
    return order[np.searchsorted(known[order], ids)]
