"""Both token laws in lanes: as one program they say what each of them says alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from controllers.core import Law, TokenSignal
from controllers.coverage import EntropyCoverage, EntropyCoverageState
from controllers.law_graph import Traced, together, traced
from controllers.preset import Preset
from controllers.presets import PRESETS, get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Residual, TraceModel
from simulator.array_laws import STEPS
from simulator.array_laws_lanes import (
    MEASURED,
    LanesAsTheyAre,
    LawLanes,
    Measured,
    ProgramLanes,
    law_lanes,
)
from simulator.scan_lanes import applied
from tests.simulator.array_worlds import World, arrivals_of, assert_same, serve

NONE = frozenset[str]()
PROGRAMS = [name for name in PRESETS if name != "seed"]  # whose temperature law has no graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A coverage law that cuts its arrays up, which a stand-in cannot show."""

    law: EntropyCoverage

    def init(self, signal: TokenSignal) -> EntropyCoverageState:
        return self.law.init(signal)

    def update(
        self, state: EntropyCoverageState, signal: TokenSignal
    ) -> tuple[EntropyCoverageState, np.ndarray]:
        return self.law.update(
            state, signal._replace(h_cal=signal.h_cal[np.arange(len(signal[0]))])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstEntropy:
    """A coverage law that starts from what it measures first, and commands it for ever."""

    def init(self, signal: TokenSignal) -> np.ndarray:
        return signal.h_cal * 1.0

    def update(self, state: np.ndarray, signal: TokenSignal) -> tuple[np.ndarray, np.ndarray]:
        return state, state + 0.0 * signal.position


def request_of(rng: np.random.Generator, request_id: int) -> Request:
    return Request(
        request_id=request_id,
        prompt_tokens=3,
        max_tokens=9,
        temperature=float(rng.choice([0.0, 0.7, 1.0])),
        target_nats=float(rng.choice([0.8, 1.5])),
        enabled=bool(rng.random() < 0.8),
    )


def drawn(rng: np.random.Generator, lanes: int, *, odd: bool) -> Measured:
    found = [rng.normal(1.0, 1.5, lanes) for _ in MEASURED]
    if odd:
        for values in found[:4]:
            spoilt = rng.random(lanes) < 0.05
            values[spoilt] = rng.choice(np.array([np.nan, np.inf, -np.inf]), int(spoilt.sum()))
    return tuple(found)


@pytest.mark.parametrize("odd", [False, True], ids=["finite", "odd"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_program_says_what_both_laws_say(name: str, *, odd: bool):
    preset = get_preset(name)
    laws = applied(preset.temperature), applied(preset.coverage)
    finite = NONE if odd else frozenset({"h_cal"})
    assert_alike(law_lanes(*laws, finite), LanesAsTheyAre(*laws), odd=odd)


def test_a_coverage_law_starts_at_its_first_signal():
    laws = get_preset("full").temperature, FirstEntropy()
    assert_alike(law_lanes(*laws, NONE), LanesAsTheyAre(*laws), odd=False)


def assert_alike(ours: LawLanes, theirs: LanesAsTheyAre, *, odd: bool) -> None:
    """Advance both while requests come, pause, are switched off and go."""
    assert isinstance(ours, ProgramLanes)
    rng, slots, asked = np.random.default_rng(5), {}, 0
    for turn in range(14):
        for request_id in range(3 * turn, 3 * turn + (5 if turn < 8 else 3)):
            if request_id not in slots:
                request = request_of(rng, request_id)
                slots[request_id] = ours.enter(request), theirs.enter(request)
        for request_id in [i for i in slots if turn >= 8 and rng.random() < 0.2]:
            ours.release(request_id)
            theirs.release(request_id)
            del slots[request_id]
        off = rng.choice(list(slots))
        ours.disable(off)
        theirs.disable(off)
        ids = [i for i in slots if rng.random() < 0.7]
        ours.take_up(ids, np.array([slots[i][0] for i in ids], np.intp))
        theirs.take_up(ids, np.array([slots[i][1] for i in ids], np.intp))
        for _ in range(3):
            assert ours.x_in().tobytes() == theirs.x_in().tobytes()
            measured = drawn(rng, len(ids), odd=odd)
            ours.step(measured)
            theirs.step(measured)
            assert ours.command.tobytes() == theirs.command.tobytes()
            assert ours.coverage.tobytes() == theirs.coverage.tobytes()
            asked += len(ids)
        ours.put_back()
        theirs.put_back()
    assert asked > 300
    assert max(slot for slot, _ in slots.values()) >= 16  # the first table was full


def test_values_that_both_laws_compute_are_computed_once():
    first, second = graphs(get_preset("full"))
    found = together(first, second, {"enabled": "minded"})
    assert found is not None
    assert len(found.nodes) < len(first.nodes) + len(second.nodes)
    assert {"enabled", "minded"} <= {node.leaf for node in found.nodes}


def test_a_command_that_is_the_old_state_is_not_put_together():
    first, second = graphs(get_preset("full"))
    kept = next(i for i, node in enumerate(second.nodes) if node.leaf == 0)
    assert together(first, dataclasses.replace(second, command=kept), {}) is None


def graphs(preset: Preset) -> tuple[Traced, Traced]:
    found = [traced(applied(law)) for law in (preset.temperature, preset.coverage)]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


@pytest.mark.parametrize("law", [EntropyCoverage(), Cut(law=EntropyCoverage())], ids=["", "cut"])
def test_a_long_quiet_run_leaves_the_ledger_of_the_loop(
    law: Law, model: TraceModel, residual: Residual, step_law: StepLaw
):
    preset = dataclasses.replace(get_preset("full"), coverage=law, sparse_min_context=20)
    limits = EngineLimits(max_seqs=4, token_budget=256, n_pages=400, max_context=512)
    rng = np.random.default_rng(2)
    arrivals = [
        dataclasses.replace(
            arrival,
            output_tokens=3 * STEPS,
            request=dataclasses.replace(arrival.request, max_tokens=3 * STEPS),
        )
        for arrival in arrivals_of(rng, len(model.slices), 5, rate_per_s=1e3, cancel_share=0.0)
    ]
    world = World(
        model=model, residual=residual, preset=preset, limits=limits, step_law=step_law,
        arrivals=arrivals,
    )  # fmt: skip
    assert isinstance(law_lanes(preset.temperature, law, NONE), LanesAsTheyAre) == isinstance(
        law, Cut
    )
    calls = serve(world, "calls")
    assert_same(serve(world, "online"), calls)
    assert (calls.server.ledger.steps["n_decode"] == 4).sum() > 2 * STEPS
