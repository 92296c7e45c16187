"""A law called step after step gives its own bits, whoever comes, goes or is switched off."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.core import Law, TokenSignal
from controllers.law_graph import leaves
from controllers.law_steps import LawSteps
from controllers.presets import PRESETS, shadowed

F32 = np.float32
EVERY = [*PRESETS.values(), *(shadowed(preset) for preset in PRESETS.values())]
LAWS = {f"{p.name}-{kind}": getattr(p, kind) for p in EVERY for kind in ("temperature", "coverage")}


def drawn(rng: np.random.Generator, lanes: int) -> TokenSignal:
    """Entropies about the laws' thresholds, some of them not finite, and control on."""
    fields = {name: rng.normal(1.0, 1.5, lanes).astype(F32) for name in TokenSignal._fields}
    for name in ("h_cal", "h_in", "v_in", "x_user", "x_cap"):
        odd = rng.random(lanes) < 0.1
        fields[name][odd] = rng.choice(np.array([np.nan, np.inf, -np.inf], F32), int(odd.sum()))
    return TokenSignal(**fields)._replace(enabled=np.ones(lanes, F32))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_steps_give_the_bits_of_the_law(law: Law) -> None:
    rng, steps = np.random.default_rng(3), LawSteps(law)
    for lanes in (3, 20, 1, 3):  # other requests, and more than there was room for
        fixed = drawn(rng, lanes)
        state = law.init(fixed)
        steps.begin(law.init(fixed), fixed)
        kept: list[tuple[np.ndarray, bytes]] = []
        for step in range(12):
            fresh = drawn(rng, lanes)
            if step == 5:  # in place: what counts is the value, not the array
                fixed.enabled[0] = 0.0
            signal = fresh._replace(**{name: getattr(fixed, name) for name in ("x_user", "x_cap")})
            signal = signal._replace(enabled=fixed.enabled, target_nats=fixed.target_nats)
            state, wanted = law.update(state, signal)
            command = steps.step(signal)
            kept.append((command, wanted.tobytes()))
            assert same(leaves(steps.state()), leaves(state))
        assert all(
            command.tobytes() == wanted for command, wanted in kept
        )  # and stays the caller's


def test_a_law_is_not_called_where_its_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    law, rng = PRESETS["full"].temperature, np.random.default_rng(0)
    signal = drawn(rng, 2)
    steps = LawSteps(law)
    steps.begin(law.init(signal), signal)
    monkeypatch.setattr(type(law), "update", refuse)
    assert len(steps.step(signal)) == 2


def refuse(*_: object) -> None:
    pytest.fail("the law itself was called")


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return [np.ascontiguousarray(x).tobytes() for x in ours] == [
        np.ascontiguousarray(x).tobytes() for x in theirs
    ]
