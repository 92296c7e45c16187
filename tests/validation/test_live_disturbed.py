"""Disturbed runs, campaigns in slices, and the profile timed between the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.models import LoadedModel
from backend.profile_points import points_of
from reports.validation import live_campaign
from reports.validation.live_campaign import measure
from reports.validation.live_disturbed import FEWEST, TRIES, Tries, set_aside
from reports.validation.live_document import document_of
from reports.validation.live_drift import Drift
from reports.validation.live_load import LiveOptions, Spec, specs
from reports.validation.live_store import Folder
from reports.validation.live_text import live_text
from reports.validation.live_turns import PROFILE, STEPS, repriced, turns_of
from tests.backend.tiny import tiny_model
from tests.validation.live_world import OPTIONS, campaign
from traces.profile import read_profile

SMALL = replace(OPTIONS, loads=(0.8,), presets=("baseline",), repeats=3, requests=2, max_tokens=4)


@pytest.fixture(scope="module")
def tiny() -> Iterator[LoadedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_model()
    torch.set_num_threads(threads)


def steady(monkeypatch: pytest.MonkeyPatch, totals: list[float]) -> None:
    """Have the reference steps take ``totals``, then 1 for ever; the first is the warm-up's."""
    left = iter([1.0, *totals])

    def drift(*_: object) -> Drift:
        total = next(left, 1.0)
        return Drift(prefill=total, decode=total, total=total)

    monkeypatch.setattr(live_campaign, "measure_drift", drift)


def test_a_run_beyond_the_median_before_or_after_is_set_aside():
    quiet = (1.0, 1.0)
    pairs = [quiet, quiet, quiet, (1.3, 1.0), quiet, (1.0, 0.7), (1.2, 0.8)]
    assert set_aside(pairs, 0.25) == [False, False, False, True, False, True, False]


def test_the_first_runs_are_judged_once_there_are_enough_references():
    early = [(2.0, 1.0), (1.0, 1.0)]
    assert 2 * len(early) < FEWEST
    assert set_aside(early, 0.25) == [False, False]
    assert set_aside([*early, (1.0, 1.0)], 0.25) == [True, False, False]


@given(st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)), min_size=3, max_size=12))
def test_a_judged_run_is_judged_alike_whatever_comes_after(pairs: list[tuple[float, float]]):
    whole = set_aside(pairs, 0.25)
    for n in range(3, len(pairs) + 1):
        assert set_aside(pairs[:n], 0.25) == whole[:n]


def fake_tries(totals: dict[Spec, float], options: LiveOptions) -> Tries:
    """Return the tries of a folder whose runs had these reference steps, in this order."""
    runs = {
        spec: SimpleNamespace(
            spec=spec,
            facts={"drift": {"total": at}, "drift_after": {"total": 1.0}, "order": order},
        )
        for order, (spec, at) in enumerate(totals.items())
    }
    folder = SimpleNamespace(has=lambda spec: spec in runs, read=lambda spec: runs[spec])
    return Tries(cast(Folder, folder), options)


def test_a_run_disturbed_at_every_try_counts_by_its_last():
    options = replace(SMALL, redo_beyond=0.25)
    wanted = specs(options)
    made = dict.fromkeys(wanted, 1.0) | {wanted[-1]: 3.0}
    for attempt in range(1, TRIES):
        again = replace(wanted[-1], attempt=attempt)
        assert fake_tries(made, options).left() == [again]
        made[again] = 3.0
    tries = fake_tries(made, options)
    assert tries.left() == []
    assert [run.spec for run in tries.counted()] == [*wanted[:-1], again]
    assert len(tries.aside()) == TRIES - 1
    assert tries.disturbed(tries.counted()[-1])


def test_a_disturbed_run_is_played_again_last_and_shown_beside(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steady(monkeypatch, [1.0, 1.0, 1.0, 1.5])  # the second run is disturbed when it is over
    made = campaign(tiny, tmp_path, replace(SMALL, redo_beyond=0.25))
    lines: list[str] = []
    assert measure(made, lines.append) == 0
    played = [run.spec for run in Tries(made.folder, made.options).made]
    wanted = specs(made.options)
    assert played == [*wanted, replace(wanted[1], attempt=1)]
    assert lines[-1].endswith("+0.0 % after")
    assert (tmp_path / "runs" / f"{wanted[1].name}.npz").is_file()

    document = json.loads(json.dumps(document_of(made, rescale=False), allow_nan=False))
    assert document["set_aside"] == 1
    assert [run["counts"] for run in document["runs"]] == [True, False, True, True, True]
    (cell,) = [cell for cell in document["cells"] if cell["load"] > 0.0]
    assert (cell["repeats"], cell["set_aside"]) == (3, 1)
    e2e = next(r for r in cell["rows"] if (r["metric"], r["stat"]) == ("e2e_s", "mean"))
    aside = made.folder.read(wanted[1]).seen.latencies()["e2e_s"].mean()
    assert 4 * e2e["measured_with_set_aside"] == pytest.approx(3 * e2e["measured"] + aside)
    assert "baseline at 80%: 3 repeats, 1 runs set aside" in live_text({**document, "commit": ""})


def test_a_campaign_in_slices_with_its_own_profile(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steady(monkeypatch, [])
    options = replace(SMALL, profile_passes=1)
    wanted, lefts = len(specs(options)), []
    for number in range(wanted):
        made = campaign(tiny, tmp_path, options, resume=number > 0)
        turns = turns_of(made)
        assert turns is not None
        with turns:
            clock = iter([0.0, 9.0])  # begun, after the first run
            monkeypatch.setattr(live_campaign, "monotonic", lambda clock=clock: next(clock))
            lefts.append(measure(made, lambda _: None, between=turns.take, stop_after_s=5.0))
    assert lefts == [3, 2, 1, 0]

    made = campaign(tiny, tmp_path, options, resume=True)
    turns = turns_of(made)
    assert turns is not None
    assert turns.passes == 1, "four turns of a quarter each, over four processes"
    passes = turns._store.passes
    seen = [stage for taken in passes for stage, steps in enumerate(taken) if steps]
    assert set(seen) == set(range(len(passes[0])))
    assert len(seen) - len(passes[0]) < len(passes), "no turn is longer than its share"
    again = repriced(made, turns)
    found = read_profile(tmp_path / PROFILE)
    assert found.law == again.twin.step_law != made.twin.step_law
    assert "visits in 4 turns between live runs" in found.source
    assert found.fit_error["held_out_mean_abs_pct"] > 0.0
    assert document_of(again, rescale=False)["profile"]["source"] == found.source
    assert len(points_of(passes)) >= len(passes[0])
    assert (tmp_path / STEPS).is_file()


@pytest.mark.parametrize(
    "changed", [{"profile_passes": -1}, {"redo_beyond": 0.0}, {"redo_beyond": math.nan}]
)
def test_a_rule_out_of_range_is_refused_by_name(changed: dict[str, Any]):
    with pytest.raises(ValueError, match=next(iter(changed))):
        LiveOptions(**changed)
