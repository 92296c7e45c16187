from __future__ import annotations

from pathlib import Path

import pytest

from controllers.peers import PEERS
from controllers.presets import PRESETS, get_preset
from controllers.temperature import EntropyFeedback
from reports.verify.target import LAWS, resolve, role_of

GOOD = """
from dataclasses import dataclass, replace
from controllers.presets import PRESETS
from controllers.priority import Fcfs
from controllers.serving.scheduler import Scheduler
from controllers.temperature import EntropyFeedback


class Mine:
    def init(self, signal):
        return ()

    def update(self, state, signal):
        return state, signal.wait_s * 1.0


@dataclass(frozen=True)
class Sturdy(EntropyFeedback):
    pass


class Unhappy(Mine):
    def __init__(self):
        raise ValueError("gain must be\\n positive; got gain=-1")


class NeedsGain(Mine):
    def __init__(self, gain):
        self.gain = gain


class Raises(Mine):
    def update(self, state, signal):
        raise KeyError("lost")


class Blind(Mine):
    def update(self, state, signal):
        return state, signal[0] * 0.0


class Late(Scheduler):
    pass


strong = EntropyFeedback(gain=0.5)
preset = replace(PRESETS["full"], name="mine", priority=Fcfs())
number = 7


class Outer:
    inner = strong
"""


@pytest.fixture
def laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "my_laws.py"
    path.write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize("name", [*PRESETS, *PEERS])
def test_a_preset_is_its_three_laws_and_a_server(name):
    target = resolve(name)
    assert target.subject_name == name
    assert [part.role for part in target.parts] == [
        "temperature",
        "coverage",
        "priority",
        "serving",
    ]
    assert target.part("serving").law is get_preset(name)
    assert target.part("temperature").law is get_preset(name).temperature
    assert not any(part.alone for part in target.parts)


def test_every_law_of_ours_is_a_target_whose_role_is_its_modules():
    roles = {
        "temperature": "temperature",
        "smoothed": "temperature",
        "coverage": "coverage",
        "priority": "priority",
        "schedulers": "priority",
    }
    for name, law in LAWS.items():
        (part,) = resolve(name).parts
        assert type(part.law) is law
        module = law.__module__.removeprefix("controllers.").partition(".")[0]
        assert part.role == roles[module], name


SUBJECTS = {
    "my_laws.py:Mine": ("Mine", "priority"),
    "my_laws:Mine": ("Mine", "priority"),
    "my_laws.py:Sturdy": ("Sturdy", "temperature"),
    "my_laws.py:strong": ("EntropyFeedback", "temperature"),
    "my_laws.py:Outer.inner": ("EntropyFeedback", "temperature"),
    "my_laws.py:Late": ("Late", "serving"),
    "controllers.coverage:EntropyCoverage": ("EntropyCoverage", "coverage"),
}


@pytest.mark.parametrize("spec", SUBJECTS)
def test_a_users_own_is_resolved_from_a_file_or_a_module(laws, spec):
    target = resolve(spec)
    assert (target.subject_name, target.parts[0].role) == SUBJECTS[spec]
    assert len(target.parts) == 1


def test_a_users_preset_has_four_parts(laws):
    target = resolve("my_laws.py:preset")
    assert target.subject_name == "mine"
    assert len(target.parts) == 4


def test_gains_of_an_instance_are_described_and_fingerprinted(laws):
    part = resolve("my_laws.py:strong").parts[0]
    assert part.description["gain"] == 0.5
    assert part.fingerprint != resolve("EntropyFeedback").parts[0].fingerprint


def test_gains_of_a_plain_class_are_fingerprinted(laws):
    laws.write_text(GOOD + "\nclass Held(Mine):\n    def __init__(self):\n        self.k = 1\n")
    before = resolve("my_laws.py:Held").parts[0].fingerprint
    laws.write_text(GOOD + "\nclass Held(Mine):\n    def __init__(self):\n        self.k = 200\n")
    assert resolve("my_laws.py:Held").parts[0].fingerprint != before


REFUSED = {
    "fastest": ("unknown target 'fastest'", "full", "EntropyFeedback", "file.py:attribute"),
    "my_laws.py:Absent": ("my_laws.py:Absent", "has no attribute 'Absent'"),
    "my_laws.py:": ("must read module:attribute",),
    "absent.py:Law": ("absent.py:Law", "cannot be imported", "no file 'absent.py'"),
    "no_such_module:Law": ("cannot be imported", "ModuleNotFoundError"),
    "my_laws.py:Unhappy": ("cannot be constructed", "gain must be positive; got gain=-1"),
    "my_laws.py:NeedsGain": ("cannot be constructed", "TypeError", "gain"),
    "my_laws.py:number": ("is a int, not a law", "init and update"),
    "my_laws.py:Blind": ("takes both signals", "--role"),
}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_cannot_be_a_target_is_refused_in_one_line(laws, spec):
    with pytest.raises(ValueError, match="target") as caught:
        resolve(spec)
    assert "\n" not in str(caught.value)
    for word in REFUSED[spec]:
        assert word in str(caught.value)


def test_a_file_that_fails_to_import_is_refused_with_its_error(laws):
    for text, error in (("1 +", "SyntaxError"), ("raise SystemExit", "SystemExit")):
        laws.write_text(text)
        with pytest.raises(ValueError, match=error):
            resolve("my_laws.py:Mine")


def test_a_role_given_by_hand_wins_and_a_wrong_one_is_refused(laws):
    assert resolve("my_laws.py:Blind", "coverage").parts[0].role == "coverage"
    with pytest.raises(ValueError, match="unknown role 'macro'; known: temperature, coverage"):
        resolve("my_laws.py:Blind", "macro")


def test_a_law_that_raises_still_gets_the_role_it_was_written_for(laws):
    laws.write_text(
        GOOD + "\nclass Half(Mine):\n    def update(self, state, signal):\n"
        "        return state, signal.wait_s + self.missing\n"
    )
    target = resolve("my_laws.py:Half")
    assert target.parts[0].role == "priority"
    assert resolve("my_laws.py:Raises").parts[0].role in ("coverage", "priority")
    assert role_of(EntropyFeedback(), "EntropyFeedback") == "temperature"


def test_resolving_leaves_the_module_path_as_it_was(laws):
    import sys

    before = list(sys.path)
    resolve("my_laws.py:Mine")
    assert sys.path == before
