"""Properties P3, P9 and P13 of the research notes, by name, for every law."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from controllers.core import Law, TemperatureLaw, TokenSignal, put_lanes, take_lanes
from controllers.entropy import entropy_varentropy
from controllers.ops import Array
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback, FeedforwardNewton, SeedLiteral
from reports.parity_commands import LOG
from reports.verify.contract.signals import leaves, to_torch, token_signals
from reports.verify.contract.subject import Subject, subject_of
from tests.contract.subjects import SUBJECTS
from tests.strategies import token_signal
from tests.verify.planted.contract_laws import CountsInAnAttribute, RoundsApart
from traces.schema import X_NODES
from traces.store import read_trace

CLIPPED: tuple[TemperatureLaw, ...] = (
    EntropyFeedback(),
    EntropyFeedback(c=math.inf, rate=math.inf),
    SmoothedFeedback(),
    FeedforwardNewton(),
    SeedLiteral(),
)
STEPS = 96  # tokens of each recorded sequence that are used
ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)
each_clipped = pytest.mark.parametrize("law", CLIPPED, ids=lambda law: type(law).__name__)
each_subject = pytest.mark.parametrize("name", SUBJECTS)
reads_tokens = [name for name, subject in SUBJECTS.items() if subject.signals is token_signals]


@each_clipped
@given(
    measured=npst.arrays(np.float32, (6, 4), elements=ANY_FLOAT),
    x_user=ANY_FLOAT,
)
def test_p3_no_measurement_moves_a_command_out_of_its_clips(
    law: TemperatureLaw, measured: np.ndarray, x_user: float
) -> None:
    h, v, target, cap = measured.T
    fields = {"h_in": h, "v_in": v, "target_nats": target, "x_user": x_user, "x_cap": cap[0]}
    signal = token_signal(len(h), dtype=np.float32, **fields)
    top = X_MAX if np.isnan(cap[0]) else max(-20.0, min(X_MAX, float(cap[0])))
    with np.errstate(all="ignore"):
        state = law.init(signal)
        for _ in range(8):
            state, command = law.update(state, signal)
            assert np.isfinite(command).all()
            assert (command <= np.float32(top)).all()
            assert (command >= np.float32(min(X_MIN, top))).all()


@pytest.mark.parametrize(
    ("row", "entropy"),
    [
        ([3.0], 0.0),  # one outcome
        ([0.0, -math.inf, -math.inf], 0.0),  # a mask that leaves one
        ([2.0] * 50, math.log(50.0)),  # all tied
        ([7.0, 7.0, -math.inf], math.log(2.0)),
        ([500.0, 0.0, 0.0], 0.0),  # a needle
        ([1e30, 1e30, -1e30], math.log(2.0)),
    ],
)
@pytest.mark.parametrize("x", [X_MIN, 0.0, X_MAX])
def test_p3_entropy_of_ties_masks_and_one_outcome_is_finite(
    row: list[float], entropy: float, x: float
) -> None:
    h, v = entropy_varentropy(np.array(row), x)
    assert h == pytest.approx(entropy, abs=1e-9)
    assert v == pytest.approx(0.0, abs=1e-9)


@each_clipped
@pytest.mark.parametrize("row", [[3.0], [0.0, -math.inf], [1.0, 1.0], [2.0] * 50])
def test_p3_a_law_on_a_response_that_no_temperature_moves_stays_finite(
    law: TemperatureLaw, row: list[float]
) -> None:
    state = law.init(token_signal(target_nats=1.0))
    for _ in range(64):
        h, v = entropy_varentropy(np.array(row), law.x_in(state))
        state, command = law.update(state, token_signal(h_in=h, v_in=v, target_nats=1.0))
        assert X_MIN <= command[0] <= X_MAX


@each_subject
@pytest.mark.parametrize("ahead", [1, 7])
def test_p9_a_speculation_rolled_back_leaves_no_trace(name: str, ahead: int) -> None:
    for convert in (lambda tree: tree, to_torch):
        assert first_trace_of_speculation(SUBJECTS[name], ahead, convert) is None


def test_p9_a_memory_outside_the_state_is_a_trace_of_speculation() -> None:
    hidden = subject_of(CountsInAnAttribute(), "temperature")
    assert first_trace_of_speculation(hidden, 2, lambda tree: tree) is not None


@each_subject
def test_p9_saving_and_restoring_twice_is_saving_and_restoring_once(name: str) -> None:
    law, signals, _ = SUBJECTS[name]
    path = signals(12, 8, 3)
    state = law.init(path[0])
    for signal in path:
        state, _ = law.update(state, signal)
    some = np.array([6, 1, 4])
    saved = take_lanes(state, some)
    for _ in range(2):
        state_again = put_lanes(state, some, saved)
        assert same_bits(state_again, state)
        assert same_bits(take_lanes(state_again, some), saved)
        state = state_again


@each_subject
def test_p9_a_snapshot_stays_as_it_was_while_the_law_runs_on(name: str) -> None:
    law, signals, _ = SUBJECTS[name]
    path = signals(12, 8, 4)
    state, _ = law.update(law.init(path[0]), path[0])
    saved = take_lanes(state, np.arange(8))
    before = [leaf.tobytes() for leaf in leaves(saved)]
    for signal in path[1:]:
        state, _ = law.update(state, signal)
    assert [leaf.tobytes() for leaf in leaves(saved)] == before


@pytest.fixture(scope="module")
def recorded() -> list[TokenSignal]:
    """Token signals of the committed recording: one lane per sequence, H and V as recorded."""
    trace = read_trace(LOG.parent / "smollm2_recorded.parquet")
    starts = [start for start, stop in trace.slices if stop - start >= STEPS]
    lanes = len(starts)
    node = np.arange(lanes) % len(X_NODES)  # where this lane's law is taken to measure
    columns = trace.columns

    def one(step: int) -> TokenSignal:
        rows = np.array(starts) + step
        return token_signal(
            lanes,
            dtype=np.float32,
            h_cal=columns["h_cal"][rows],
            v_cal=columns["v_cal"][rows],
            h_in=columns["h"][rows, node],
            v_in=columns["v"][rows, node],
            surprisal=columns["surprisal"][np.maximum(rows - 1, starts)],
            target_nats=1.0 + np.arange(lanes) % 3,
            x_user=X_NODES[node],
            enabled=np.arange(lanes) % 5 > 0,
            position=step,
        )

    return [one(step) for step in range(STEPS)]


@pytest.mark.parametrize("name", reads_tokens)
def test_p13_numpy_and_torch_keep_the_same_state_on_a_recording(
    name: str, recorded: list[TokenSignal]
) -> None:
    assert len(recorded[0].h_cal) >= 50
    assert first_difference(SUBJECTS[name].law, recorded) is None


def test_p13_a_law_that_rounds_apart_is_told_by_the_recording(recorded: list[TokenSignal]) -> None:
    assert first_difference(RoundsApart(), recorded) is not None


def test_p13_the_recording_moves_every_law_that_reads_entropy(recorded: list[TokenSignal]) -> None:
    for name in ("feedback", "newton", "seed_literal", "entropy_coverage"):
        law = SUBJECTS[name].law
        state = law.init(recorded[0])
        seen = []
        for signal in recorded:
            state, command = law.update(state, signal)
            seen.append(command)
        assert (np.std(seen, axis=0) > 0.0).mean() > 0.5, name


def first_trace_of_speculation(
    subject: Subject, ahead: int, convert: Callable[[Array], Array]
) -> int | None:
    """Run with and without speculations that are rolled back; return the step they part at."""
    law, signals, _ = subject
    path = [convert(signal) for signal in signals(24, 8, 1)]
    guesses = [convert(signal) for signal in signals(ahead, 8, 2)]
    everyone = convert(np.arange(8))
    plain = rolled = law.init(path[0])
    for step, signal in enumerate(path):
        if step % 5 == 3:
            saved = take_lanes(rolled, everyone)
            for guess in guesses:
                rolled, _ = law.update(rolled, guess)
            rolled = put_lanes(rolled, everyone, saved)
        plain, want = law.update(plain, signal)
        rolled, got = law.update(rolled, signal)
        if not same_bits((rolled, got), (plain, want)):
            return step
    return None


def first_difference(law: Law, path: list[TokenSignal]) -> int | None:
    """Run numpy and torch side by side; return the first step their states or commands differ."""
    ours, theirs = law.init(path[0]), law.init(to_torch(path[0]))
    for step, signal in enumerate(path):
        ours, command = law.update(ours, signal)
        theirs, other = law.update(theirs, to_torch(signal))
        if not same_bits((ours, command), (theirs, other)):
            return step
    return None


def same_bits(a: Array, b: Array) -> bool:
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
