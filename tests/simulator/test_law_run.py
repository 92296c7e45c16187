"""A law run from its graph gives the law's own bits, whatever it is fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers import ops
from controllers.compose import Gated, Shadow, delayed, rate_limited
from controllers.core import Law, TokenSignal, take_lanes
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.law_graph import leaves, traced
from controllers.ops import Array
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from simulator.law_run import LawRun
from simulator.ragged import Ragged

F32 = np.float32
LAWS = (
    Gated(law=EntropyFeedback()),
    Gated(law=FeedforwardNewton()),
    Gated(law=rate_limited(SeedLiteral(), 0.05)),
    Gated(law=delayed(SeedLiteral())),
    Gated(law=FixedTemperature()),
    EntropyFeedback(c=float("inf"), rate=float("inf")),
    Shadow(applied=FixedTemperature(), observed=EntropyFeedback()),
    EntropyCoverage(),
    EntropyCoverage(dwell=2, rate=0.5, p_min=0.5, p_max=1.0),
    SeedCoverage(),
    FixedCoverage(coverage=0.9),
)
MOVING = frozenset({"h_cal", "v_cal", "h_in", "v_in", "surprisal", "position"})
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 3e38], F32)


def signals(rng: np.random.Generator, lanes: int, *, odd: bool) -> TokenSignal:
    """Entropies about the laws' thresholds; ``odd`` ones in places."""
    fields = {name: rng.normal(1.0, 1.5, lanes).astype(F32) for name in TokenSignal._fields}
    for name in ("h_in", "v_in", "h_cal", "v_cal", "x_user", "x_cap", "target_nats"):
        where = rng.random(lanes) < (0.15 if odd else 0.0)
        fields[name][where] = rng.choice(ODD, int(where.sum()))
    return TokenSignal(**fields)._replace(enabled=(rng.random(lanes) < 0.7).astype(F32))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
@given(seed=st.integers(0, 2**32), enabled=st.sampled_from(["all", "none", "some"]))
def test_a_program_gives_the_bits_of_its_law(law: Law, seed: int, enabled: str) -> None:
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 9))
    fixed = signals(rng, lanes, odd=True)
    if enabled != "some":
        fixed = fixed._replace(enabled=np.full(lanes, enabled == "all", F32))
    run = LawRun(law, fixed, MOVING)
    with np.errstate(all="ignore"):
        state = law.init(fixed)
        run.start(fixed)
        for step in range(9):
            if step % 3 == 0:
                lanes = max(1, lanes - int(rng.integers(0, 3)))
                fixed, state = TokenSignal(*(x[:lanes] for x in fixed)), _first(state, lanes)
                run.bind(lanes)
            fresh = signals(rng, lanes, odd=step % 2 == 1)
            signal = fixed._replace(**{name: getattr(fresh, name) for name in MOVING})
            for name, values in run.inputs.items():
                values[:] = getattr(signal, name)
            state, command = law.update(state, signal)
            run.step()
            assert run.command.tobytes() == np.ascontiguousarray(command).tobytes()
            assert [x.tobytes() for x in leaves(run._state)] == [
                np.ascontiguousarray(x).tobytes() for x in leaves(state)
            ]


def _first(state: object, lanes: int) -> object:
    return take_lanes(state, np.arange(lanes))


def test_programs_compute_nothing_that_nobody_reads() -> None:
    lanes = np.ones(3, F32)
    fixed = TokenSignal(*(lanes for _ in TokenSignal._fields))
    run = LawRun(Gated(law=EntropyFeedback()), fixed._replace(enabled=0.0 * lanes), MOVING)
    assert run.inputs == {}  # every lane is off: no measurement counts
    assert run._program is not None
    assert len(run._program._plan.steps) == 0
    assert set(LawRun(EntropyCoverage(), fixed, MOVING).inputs) == {"h_cal"}


class Held(NamedTuple):
    a: Array
    b: Array


@dataclass(frozen=True)
class Swapping:
    """Its two leaves change places at every token."""

    def init(self, signal: TokenSignal) -> Held:
        return Held(signal.h_cal * 1.0, signal.h_cal * 2.0)

    def update(self, state: Held, signal: TokenSignal) -> tuple[Held, Array]:
        return Held(state.b, state.a), state.a * signal.h_cal


@dataclass(frozen=True)
class Choosing:
    """Its new state is one choice, of the old state if the test holds, and old is still read."""

    def init(self, signal: TokenSignal) -> Held:
        return Held(signal.h_cal * 1.0, signal.h_cal * 0.0)

    def update(self, state: Held, signal: TokenSignal) -> tuple[Held, Array]:
        warm = signal.h_cal > signal.v_cal
        a = ops.where(warm, state.a, signal.h_cal + state.b)
        b = ops.where(warm, signal.v_cal - state.b, state.b)
        return Held(a, b), ops.where(warm, a, a)


@dataclass(frozen=True)
class Doubling:
    """Computes with float64 numbers of its own."""

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        return state, (signal.h_cal * np.float64(0.1)).astype(F32)


@dataclass(frozen=True)
class Branching:
    """Asks whether an array is true."""

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        return state, signal.h_cal if signal.h_cal[0] > 0.0 else -signal.h_cal


@pytest.mark.parametrize("law", [Swapping(), Choosing(), Doubling(), Branching()])
def test_unusual_laws_run_as_they_are_written(law: Law) -> None:
    assert (traced(law) is not None) == isinstance(law, Choosing)
    test_a_program_gives_the_bits_of_its_law.hypothesis.inner_test(law, 5, "some")


def test_runs_cover_every_position_with_lanes_enough() -> None:
    lengths = np.sort(np.random.default_rng(0).geometric(0.02, 300))[::-1]
    ragged = Ragged(lengths)
    seen: list[int] = []
    for run in ragged.runs():
        for t, begin in zip(run.positions, run.edges, strict=False):
            count = int((lengths > t).sum())
            assert count <= run.lanes <= count + max(count // 8, 24)
            assert begin == int(np.minimum(lengths, t).sum())
            assert begin + run.lanes <= ragged.total
            seen.append(t)
        assert run.edges[-1] == int(np.minimum(lengths, run.positions[-1] + 1).sum())
    assert seen == list(range(int(lengths[0])))
