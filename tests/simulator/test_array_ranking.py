"""The ranking program of those who wait: the law's own bits on the loop's own signals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controllers.core import LoadSignal
from controllers.law_graph import traced
from controllers.preset import Preset
from controllers.presets import PRESETS
from controllers.serving.load import LoadSensors
from controllers.serving.request import Request, Sequence
from simulator.array_board import Board
from simulator.array_parts import fields_read
from simulator.array_ranking import Scoring
from tests.serving.worlds import STEP_LAW, limits

LIMITS = limits()
NAMES = [name for name in sorted(PRESETS) if not PRESETS[name].priority.oracle]


def waiting(rng: np.random.Generator, request_id: int, slo_s: float) -> Sequence:
    request = Request(
        request_id=request_id,
        prompt_tokens=int(rng.integers(1, 40)),
        max_tokens=int(rng.integers(5, 60)),
        first_token_slo_s=slo_s,
    )
    since = int(rng.integers(0, 9 * 10**9))
    sequence = Sequence(request=request, arrival_ns=since, wait_since_ns=since)
    sequence.generated = int(rng.choice([0, 0, 3]))
    sequence.wait_since_step = int(rng.integers(0, 50))
    return sequence


def by_the_law(preset: Preset, load: LoadSensors, there: list[Sequence], now_ns: int) -> list[int]:
    signal = load.read(there, now_ns, 70)
    with np.errstate(all="ignore"):
        _, found = preset.priority.update(preset.priority.init(signal), signal)
    ranked = sorted(
        zip(found.tolist(), there, strict=True),
        key=lambda pair: (-pair[0], pair[1].arrival_ns, pair[1].request.request_id),
    )
    return [sequence.request.request_id for _, sequence in ranked]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slo_s", [4.0, math.inf])
def test_who_waits_is_ranked_as_the_law_ranks_them(name: str, slo_s: float) -> None:
    preset, rng = PRESETS[name], np.random.default_rng(7)
    load = LoadSensors(preset, LIMITS, STEP_LAW, None)
    board, there = Board(preset, LIMITS, STEP_LAW, load), {}
    for turn, came in enumerate((3, 90, 1, 200)):  # beyond the first columns, then twice as many
        for i in range(came):
            at_limit = slo_s if i == came // 2 else 5.0
            sequence = waiting(rng, 1000 * turn + i, at_limit)
            there[sequence.request.request_id] = sequence
            board.add(sequence)
        now_ns = (9 + turn) * 10**9
        ranked = [s.request.request_id for s in board.by_priority(None, now_ns, 70)]
        assert ranked == by_the_law(preset, load, list(there.values()), now_ns)
        for request_id in rng.permutation(ranked)[: came // 2].tolist():
            board.remove(request_id)
            del there[request_id]


@pytest.mark.parametrize("name", NAMES)
def test_signals_that_are_asked_for_do_not_depend_on_the_others(name: str) -> None:
    preset, rng = PRESETS[name], np.random.default_rng(3)
    there = [waiting(rng, i, 5.0) for i in range(9)]
    load = LoadSensors(preset, LIMITS, STEP_LAW, None)
    every = load.read(there, 10**10, 70)
    load.asked = fields_read(preset.priority)
    some = load.read(there, 10**10, 70)
    for field in load.asked:
        assert getattr(some, field).tobytes() == getattr(every, field).tobytes()


@pytest.mark.parametrize("name", ["full", "scheduling", "seed"])
def test_residents_are_scored_with_the_bits_of_the_law(name: str) -> None:
    preset, rng = PRESETS[name], np.random.default_rng(5)
    load = LoadSensors(preset, LIMITS, STEP_LAW, None)
    graph = traced(preset.priority, LoadSignal)
    assert graph is not None
    scoring = Scoring(graph)
    for n in (1, 26, 200, 64, 3):  # few, many, and few again, over what the many left
        there = [waiting(rng, i, 5.0 if i else math.inf) for i in range(n)]
        signal = load.read(there, 10**10, 70)
        with np.errstate(all="ignore"):
            _, expected = preset.priority.update((), signal)
        assert scoring.of(signal).tobytes() == expected.tobytes()
