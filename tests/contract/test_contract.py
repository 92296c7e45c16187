"""Every law against every rule, and every rule against the laws planted to break it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from controllers.core import replay
from controllers.presets import PRESETS, shadowed
from controllers.temperature import EntropyFeedback
from reports.verify.contract import PROPERTIES, ContractProperty
from reports.verify.contract.signals import to_torch, token_signals
from tests.contract.subjects import SUBJECTS, Subject
from tests.verify.planted.table import PLANTED, Planted

BY_NAME = {item.name: item for item in PROPERTIES}
AGAINST_RULES = [item for item in PLANTED if item.property in BY_NAME]
by_rule = pytest.mark.parametrize("rule", PROPERTIES, ids=lambda rule: rule.name)


def broken_by(rule: ContractProperty, subject: Subject) -> list[str]:
    fields = subject.signals(1, 1)[0]._fields
    found = [rule.breach_of(subject, trial) for trial in rule.trials(fields)]
    return [broken.message for broken in found if broken is not None]


@by_rule
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_law_keeps_every_rule(name: str, rule: ContractProperty) -> None:
    subject = SUBJECTS[name]
    if rule.unfit(subject.law):
        assert rule.name == "contract.oracle"  # it fits priority laws that are no oracles
        return
    assert broken_by(rule, subject) == []


@pytest.mark.parametrize("planted", AGAINST_RULES, ids=lambda item: item.where)
def test_each_planted_law_is_rejected_by_its_rule(planted: Planted) -> None:
    rule, law = BY_NAME[planted.property], planted.law
    assert rule.unfit(law) == ""
    assert any(rule.breach(law, trial) is not None for trial in rule.trials_for(law))


def test_every_rule_has_a_law_it_rejects() -> None:
    assert {planted.property for planted in AGAINST_RULES} == set(BY_NAME)


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
