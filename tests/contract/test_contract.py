"""Every law against every rule, and every rule against a law that breaks it."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch

from controllers.core import replay
from controllers.presets import PRESETS, shadowed
from controllers.temperature import EntropyFeedback
from tests.contract import checks
from tests.contract.known_bad import KNOWN_BAD, SOUND
from tests.contract.signals import to_torch, token_signals
from tests.contract.subjects import SUBJECTS, Subject

by_rule = pytest.mark.parametrize("check", checks.CHECKS, ids=lambda c: c.__name__)


@by_rule
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_law_keeps_every_rule(name: str, check: Callable[[Subject], None]) -> None:
    check(SUBJECTS[name])


@pytest.mark.parametrize(
    ("check", "subject"),
    KNOWN_BAD,
    ids=[f"{c.__name__}-{type(s.law).__name__}" for c, s in KNOWN_BAD],
)
def test_each_known_bad_law_is_rejected_by_its_rule(
    check: Callable[[Subject], None], subject: Subject
) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError, IndexError)):
        check(subject)


@by_rule
def test_the_base_of_the_known_bad_laws_is_sound(check: Callable[[Subject], None]) -> None:
    if check is checks.survives_nonfinite:
        pytest.skip("the base has no NaN policy: that is its own known-bad case")
    check(SOUND)


def test_every_rule_has_a_law_it_rejects() -> None:
    assert {check for check, _ in KNOWN_BAD} == set(checks.CHECKS)


@pytest.mark.parametrize("name", ["feedback", "chain", "gated_delayed", "entropy_coverage"])
def test_laws_compile_into_one_graph(name: str) -> None:
    subject = SUBJECTS[name]
    torch._dynamo.reset()
    compiled = torch.compile(subject.law.update, fullgraph=True, backend="eager")
    signals = [to_torch(s) for s in subject.signals(5, 8)]
    state = subject.law.init(signals[0])
    for signal, want in zip(signals, replay(subject.law, signals), strict=True):
        state, command = compiled(state, signal)
        assert torch.equal(command, want)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="fusing on CPU needs a C++ compiler")
@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch deprecates its own internals
def test_a_fused_law_stays_within_an_ulp_of_the_plain_one() -> None:
    law = EntropyFeedback()
    torch._dynamo.reset()
    compiled = torch.compile(law.update, fullgraph=True)
    signals = [to_torch(s) for s in token_signals(20, 64)]
    state = law.init(signals[0])
    for signal, want in zip(signals, replay(law, signals), strict=True):
        state, command = compiled(state, signal)
        np.testing.assert_array_max_ulp(command.numpy(), want.numpy(), maxulp=4)


def test_preset_laws_are_named_by_their_gains() -> None:
    prints = {name: preset.fingerprints() for name, preset in PRESETS.items()}
    assert prints["full"]["temperature"] == prints["sampling"]["temperature"]
    assert prints["full"]["temperature"] != prints["best"]["temperature"]
    hot = shadowed(PRESETS["full"]).fingerprints()["temperature"]
    assert hot not in {p["temperature"] for p in prints.values()}
