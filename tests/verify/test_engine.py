from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from reports.verify import replay as replaying
from reports.verify.draw import draw, everything, keys, near
from reports.verify.finding import Finding, Verdict
from reports.verify.identity import describe_subject, fingerprint_of
from reports.verify.property import Cases, Choice, Number, n_lanes
from reports.verify.registry import CALLABLE
from reports.verify.replay import replay
from reports.verify.report import figures, summary, write_certificates, write_counterexamples
from reports.verify.run import REFUTED, UNFOUND, verify
from reports.verify.search import SelfSearching, search
from reports.verify.setting import Budget, get_budget
from reports.verify.target import Part, Target, resolve
from tests.verify.toys import SPACE, Hunter, Law, Toy, theory

SMALL = Budget(name="test", lanes=400, batch=100, worst=4, rounds=4, neighbours=8, examples=60)


def half(cases: Cases) -> np.ndarray:
    return cases["x"] / 20.0


def hole(cases: Cases) -> np.ndarray:
    # A bump one lane in a million falls into; its slope leads there.
    distance = np.abs(cases["x"] - 7.3) + np.abs(np.log10(cases["rate"] / 0.02))
    return 1.01 - distance


def target_of(law: Any = None) -> Target:
    law = Law() if law is None else law
    part = Part(
        role="temperature",
        law=law,
        label="Law",
        fingerprint=fingerprint_of(law),
        description=describe_subject(law),
        alone=True,
    )
    return Target(spec="toy", subject_name="Law", parts=(part,))


def check(*toys: Toy, law: Any = None) -> list[Finding]:
    return verify(target_of(law), SMALL, properties=lambda part: toys)


def test_random_cases_fill_their_ranges_and_touch_both_ends():
    cases = draw(SPACE, np.random.default_rng(0), 4000)
    for name, part in SPACE.items():
        if isinstance(part, Number):
            assert cases[name].min() == part.low
            assert cases[name].max() == part.high
    assert set(cases["pattern"]) == {"none", "alternate", "random"}
    assert cases["steps"].dtype == np.int64
    inner = (cases["rate"] > 1e-3) & (cases["rate"] < 1e3)
    assert abs(np.mean(cases["rate"][inner] < 1.0) - 0.5) < 0.05  # evenly in the logarithm


def test_a_move_stays_in_range_and_smaller_scales_stay_nearer():
    rng = np.random.default_rng(1)
    cases = draw(SPACE, rng, 2000)
    wide, close = near(SPACE, cases, rng, 0.2), near(SPACE, cases, rng, 0.01)
    for moved in (wide, close):
        for name, part in SPACE.items():
            if isinstance(part, Number):
                assert part.low <= moved[name].min() <= moved[name].max() <= part.high
    distances = [np.abs(moved["x"] - cases["x"]).mean() for moved in (wide, close)]
    assert distances[0] > 5 * distances[1] > 0


def test_a_small_finite_space_is_listed_whole_and_a_larger_one_is_not():
    space = {"field": Choice(("a", "b")), "step": Number(3, 7, integer=True)}
    listed = everything(space, 10)
    assert listed is not None
    assert n_lanes(listed) == len(np.unique(keys(listed))) == 10
    assert everything(space, 9) is None
    assert everything(SPACE, 10**9) is None


def test_listed_cases_are_searched_without_chance():
    toy = Toy(formula=lambda c: c["step"] / 8.0, parameters={"step": Number(3, 7, integer=True)})
    found = search(toy, Law(), SMALL)
    assert (found.exhaustive, found.cases, found.worst.case) == (True, 5, {"step": 7})


def test_the_worst_case_of_a_smooth_property_is_found_at_its_end():
    found = search(Toy(formula=half), Law(), SMALL)
    assert found.worst.value == 0.5
    assert not found.worst.violates
    assert found.cases > SMALL.lanes


def test_equal_seeds_give_equal_searches_and_others_differ():
    toy = Toy(formula=lambda c: 1.0 - np.abs(c["x"] - np.pi), bound=2.0)
    searches = [search(toy, Law(), dataclasses.replace(SMALL, seed=seed)) for seed in (4, 4, 5)]
    assert searches[0] == searches[1] != searches[2]


def test_a_hole_that_random_lanes_miss_is_climbed_into():
    lanes = draw(SPACE, np.random.default_rng(2), 20_000)
    assert np.mean(hole(lanes) > 1.0) < 1e-4
    found = search(Toy(formula=hole), Law(), dataclasses.replace(SMALL, rounds=12, neighbours=32))
    assert found.worst.violates


def test_hypothesis_alone_finds_and_shrinks_what_needs_a_round_number():
    toy = Toy(formula=lambda c: 2.0 * (c["x"] == 7.0))
    without = search(toy, Law(), dataclasses.replace(SMALL, examples=0))
    assert not without.worst.violates
    found = search(toy, Law(), dataclasses.replace(SMALL, examples=400))
    assert found.worst.case == {"x": 7.0, "rate": 1e-3, "steps": 1, "pattern": "none"}


def test_a_counterexample_shrinks_to_round_numbers_and_the_simplest_names():
    toy = Toy(formula=lambda c: c["x"] * c["rate"] * c["steps"])
    worst = search(toy, Law(), SMALL).worst
    assert worst.violates
    assert worst.case["pattern"] == "none"
    for name in ("x", "rate"):
        assert float(f"{worst.case[name]:.0e}") == worst.case[name]


def test_a_small_counterexample_is_as_clear_as_the_first():
    toy = Toy(formula=lambda c: c["x"] - 5.0, bound=1e-6)
    worst = search(toy, Law(), SMALL).worst
    assert worst.value - worst.bound > 0.5


def test_an_exception_in_one_lane_is_found_and_blamed_on_that_lane():
    def raises(cases: Cases) -> np.ndarray:
        if (cases["x"] > 9.9).any():
            raise ZeroDivisionError("x is too\nlarge")
        return half(cases)

    (row,) = check(Toy(formula=raises))
    assert row.verdict is Verdict.VIOLATED
    assert "ZeroDivisionError: x is too large" in row.note
    assert row.counterexample is not None
    assert row.counterexample["case"]["x"] > 9.9
    assert row.counterexample["value"] is None


def test_nan_is_a_violation_and_an_infinite_bound_is_none():
    nan = check(Toy(formula=lambda c: np.where(c["x"] > 8.0, np.nan, 0.0)))[0]
    assert nan.verdict is Verdict.VIOLATED
    free = check(Toy(formula=half, bound=math.inf))[0]
    assert free.verdict is Verdict.SEARCHED
    assert free.worst == 0.5
    assert free.to_json()["bound"] is None


def test_a_bound_that_is_met_exactly_holds():
    row = check(Toy(formula=lambda c: np.minimum(c["x"], 0.1), bound=0.1))[0]
    assert row.verdict is Verdict.SEARCHED
    assert row.conservatism == 1.0


def test_hidden_state_is_said_in_the_row():
    calls = iter(range(10**9))
    row = check(Toy(formula=lambda c: 2.0 + next(calls) + 0.0 * c["x"]))[0]
    assert row.verdict is Verdict.VIOLATED
    assert "hidden state or chance" in row.note


VERDICTS = {  # violates, certificate -> verdict, note
    (False, None): (Verdict.SEARCHED, ""),
    (False, "holds"): (Verdict.CERTIFIED, "exact"),
    (False, "exact fails"): (Verdict.SEARCHED, UNFOUND),
    (False, "sufficient fails"): (Verdict.SEARCHED, "no proof: x <= 1"),
    (True, None): (Verdict.VIOLATED, ""),
    (True, "holds"): (Verdict.VIOLATED, REFUTED),
    (True, "exact fails"): (Verdict.VIOLATED, "as theory predicts"),
}
PROOFS = {
    None: None,
    "holds": theory(holds=True),
    "exact fails": theory(holds=False),
    "sufficient fails": theory(holds=False, kind="sufficient"),
}


@pytest.mark.parametrize("case", VERDICTS, ids=str)
def test_a_verdict_weighs_the_search_against_the_certificate(case):
    violates, proof = case
    toy = Toy(formula=half, bound=0.1 if violates else 1.0, proof=PROOFS[proof])
    row = check(toy)[0]
    assert (row.verdict, row.note) == VERDICTS[case]
    assert (row.counterexample is not None) == violates


def test_what_does_not_apply_is_a_row_that_says_why():
    row = check(Toy(formula=half, why_unfit="no margin"))[0]
    assert (row.verdict, row.note, row.cases) == (Verdict.UNFIT, "no margin", 0)


def test_a_law_that_does_not_run_is_one_violation_and_not_a_screenful():
    broken = Toy(formula=lambda c: 1.0 + c["x"], bound=0.0, name=CALLABLE)
    rows = check(broken, Toy(formula=half), Toy(formula=half))
    assert [row.verdict for row in rows] == [Verdict.VIOLATED, Verdict.UNFIT, Verdict.UNFIT]
    assert CALLABLE in rows[1].note


def test_a_property_that_raises_about_the_law_does_not_stop_the_others():
    class Hostile(Toy):
        def space(self, law: Any) -> Any:
            raise RuntimeError("no space")

    rows = check(Hostile(formula=half), Toy(formula=half))
    assert rows[0].verdict is Verdict.VIOLATED
    assert rows[0].note == "raised RuntimeError: no space"
    assert rows[1].verdict is Verdict.SEARCHED


def test_a_property_may_hunt_for_cases_that_are_lists():
    def count(cases: Cases) -> np.ndarray:
        return np.array([len(row) * s["slots"] for row, s in zip(*cases.values(), strict=True)])

    toy = Hunter(formula=count, bound=2.0)
    assert isinstance(toy, SelfSearching)
    row = check(toy)[0]
    assert (row.verdict, row.worst, row.cases) == (Verdict.VIOLATED, 6.0, SMALL.lanes)
    assert row.story == ("submit", "step", "cancel")
    assert row.counterexample is not None
    assert json.loads(json.dumps(row.counterexample))["case"]["setting"] == {"slots": 2}


def test_a_written_counterexample_replays_until_the_law_is_mended(tmp_path, monkeypatch):
    law = {"slope": 1.0}  # what a user edits between two runs
    toy = Toy(formula=lambda c: law["slope"] * c["x"], bound=0.5)
    monkeypatch.setattr(replaying, "resolve", lambda spec: target_of())
    (path,) = write_counterexamples(check(toy), "Law", tmp_path).values()
    assert path.name == "Law.toy.value.json"
    again = replay(path, properties=lambda part: (toy,))
    assert again.trial.violates
    assert again.trial.value == json.loads(path.read_text())["value"]
    law["slope"] = 1e-3
    assert not replay(path, properties=lambda part: (toy,)).trial.violates


def test_another_law_is_refused_at_replay(tmp_path, monkeypatch):
    toy = Toy(formula=half, bound=0.1)
    (path,) = write_counterexamples(check(toy), "Law", tmp_path).values()
    monkeypatch.setattr(replaying, "resolve", lambda spec: target_of(Law(gain=2.0)))
    with pytest.raises(ValueError, match=r"has [0-9a-f]{16} now"):
        replay(path, properties=lambda part: (toy,))


def test_certificates_are_files_of_their_own(tmp_path):
    rows = check(Toy(formula=half, proof=PROOFS["holds"]), Toy(formula=half))
    (path,) = write_certificates(rows, "Law", tmp_path)
    document = json.loads(path.read_text())
    assert document["holds"] is True
    assert document["bound"] is None


def test_numbers_are_told_apart_however_close():
    assert figures(1.000001, 1.0) == "1.000001 > 1"
    assert figures(3.0, 1.0) == "3 > 1"


def test_the_summary_counts_every_row_once():
    rows = check(Toy(formula=half), Toy(formula=half, bound=0.1), Toy(formula=half, why_unfit="x"))
    text = summary(rows)
    assert text.startswith("3 rows: 0 certified, 1 searched, 1 violated, 1 not applicable")


@pytest.mark.parametrize("name", ["lanes", "batch", "worst", "neighbours"])
def test_an_empty_budget_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Budget(**{name: 0})


def test_dear_cases_get_fewer_lanes_and_an_unknown_profile_is_refused():
    quick = get_budget("quick", lanes=1000, seed=3)
    assert (quick.divided(10).lanes, quick.divided(10).seed) == (100, 3)
    assert quick.divided(10**9).lanes > 0
    with pytest.raises(ValueError, match="unknown profile 'slow'; known: ci, quick, deep"):
        get_budget("slow")


def test_a_law_of_ours_has_one_fingerprint_everywhere():
    from controllers.core import fingerprint

    for part in resolve("full").parts:
        assert part.fingerprint == fingerprint(part.law)
