"""The coverage of lanes that go on together: what it keeps of each row and what that does to H.

As ``CoverageControl`` rules commands, ``ShareTable`` reads shares and ``Residual`` moves H: every
operation on a number is the one those do, on all lanes at once. Where a command lies between the
recorded coverages is looked up only when one has moved, for dwelling laws seldom move it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controllers.preset import Preset
from simulator.model import TraceModel
from simulator.residual import Residual

NEVER = 2**62  # a token no request reaches
LOW, HIGH = np.array(-1.0), np.array(1.0)  # not plain numbers, which numpy makes arrays of


class Kept(NamedTuple):
    """What pruning does to the rows of one step, ``[B]`` each."""

    sparse: np.ndarray  # bool
    coverage: np.ndarray  # float64, 1 where not sparse
    share: np.ndarray  # float64, of pages
    factor: np.ndarray  # float64, what multiplies the response of H


class LaneCoverage:
    """Commands of the coverage law and what they ask of the next row of each lane."""

    def __init__(self, model: TraceModel, residual: Residual, preset: Preset) -> None:
        self._shares, (self._levels, self._sigmas) = model.shares, residual.line()
        self._entries = model.shares.shares.reshape(-1)
        self._following = self._entries[1:]
        depths, coverages = model.shares.depths, model.shares.coverages
        self._bottom, self._top = np.array(coverages[0]), np.array(coverages[-1])
        self._inner, self._lows, self._spans = depths[1:-1], depths[:-1], depths[1:] - depths[:-1]
        self._highest = float(model.shares.coverages[-1]) + 1e-6
        self._full = bool((model.shares.shares >= 1.0).any())  # a sparse row may keep every page
        self._min_context, self._every = preset.sparse_min_context, preset.probe_every
        nobody, nothing = np.zeros(0, np.int64), np.zeros(0)
        self.take_up(nobody, nobody, nobody, nothing, nothing)

    def first_sparse(self, prompt_tokens: int, *, enabled: bool) -> int:
        """Return the first token whose row may be pruned."""
        return max(self._min_context - prompt_tokens, 1) if enabled else NEVER

    def take_up(
        self,
        ids: np.ndarray,
        first: np.ndarray,
        position: np.ndarray,
        minimum: np.ndarray,
        held: np.ndarray,
    ) -> None:
        """Go on with other lanes, ``[B]``: requests, their first token that may be pruned, the
        next token, the least coverage that users allow, and the commands in force, float64.
        """  # fmt: skip
        self._first, self._minimum = first, minimum
        self._floored = bool(minimum.any())
        self._pending = bool((first > position).any())  # somebody is too short as yet
        # In which of the next ``every`` steps, which repeat, each lane is due for a probe.
        self._due, self._turns = position, frozenset[int]()
        if self._every > 0:
            self._due = -(position + ids) % self._every
            self._turns = frozenset(self._due.tolist())
        self._turn = 0
        self._everybody = np.ones(len(ids), bool)
        self._said = b""  # the commands that ``held`` came from; none as yet
        self.held, self._placed = held, False

    def hold(self, commands: np.ndarray) -> None:
        """Put the law's float32 ``commands`` in force from the next row on."""
        said = commands.tobytes()
        if said != self._said:
            self._said, self._placed = said, False
            self.held = commands.astype(np.float64)
            if self._floored:
                np.maximum(self.held, self._minimum, out=self.held)

    def read(self, entries: np.ndarray, normals: np.ndarray, position: np.ndarray) -> Kept | None:
        """Return what the rows of tokens ``position`` keep; None where every one is dense.

        ``entries`` int ``[B]`` says where the recorded shares of each row begin.
        """
        spared = self._due != self._turn if self._turn in self._turns else None
        self._turn += 1
        if self._turn >= self._every:
            self._turn = 0
        if not self._placed:
            self._place()
        if not self._any:
            return None
        sparse = self._inside
        if self._pending:
            sparse = sparse & (position >= self._first)
        if spared is not None:
            sparse = sparse & spared
        every = sparse is self._everybody
        if not every:
            n_sparse = np.count_nonzero(sparse)
            if not n_sparse:
                return None
            every = n_sparse == len(sparse)
        if self._beyond:
            self._shares.require_recorded(self.held[sparse])
        index = entries + self._index
        low = self._entries.take(index)
        share = self._following.take(index)
        share -= low
        share *= self._part
        share += low
        factor = normals * self._sigma
        np.minimum(np.maximum(factor, LOW, out=factor), HIGH, out=factor)
        if self._full:
            np.putmask(factor, share >= 1.0, 0.0)
        if every:
            return Kept(sparse, self.held, share, factor)
        factor *= sparse
        dense = ~sparse
        np.putmask(share, dense, 1.0)
        return Kept(sparse, np.where(dense, 1.0, self.held), share, factor)

    def _place(self) -> None:
        held = self.held
        highest = held.item(held.argmax())  # NaN where there is one
        if highest < 1.0 and held.item(held.argmin()) > 0.0:
            self._inside, self._any = self._everybody, True
        else:
            self._inside = (held > 0.0) & (held < HIGH)
            self._any = bool(np.count_nonzero(self._inside))
        beyond = highest > self._highest  # dense lanes among them
        self._beyond = beyond and bool((self._inside & (held > self._highest)).any())
        # As ``ShareTable.place``, with what never changes at hand.
        part = np.minimum(np.maximum(held, self._bottom), self._top)
        np.negative(part, out=part)
        np.log1p(part, out=part)
        np.negative(part, out=part)
        self._index = left = self._inner.searchsorted(part, "right")
        part -= self._lows.take(left)
        part /= self._spans.take(left)
        self._part = part
        self._sigma = np.interp(held, self._levels, self._sigmas)
        self._placed = True
