"""What used to slip past the verifier: early blow-ups, claims that are no numbers; short cases."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest

from controllers.certificates import aging
from controllers.entropy import max_varentropy
from controllers.priority import EntropyPriority
from controllers.temperature import EntropyFeedback
from reports.verify import micro, priority, starvation
from reports.verify.case_line import case_line
from reports.verify.draw import draw
from reports.verify.finding import Verdict
from reports.verify.micro import FAR, Delay
from reports.verify.micro_cases import by_plant
from reports.verify.micro_loop import run
from reports.verify.micro_tube import Tube
from reports.verify.property import Cases, Property, case_of, excess
from reports.verify.run import check
from reports.verify.setting import get_budget
from reports.verify.target import resolve

N = max_varentropy(50_257)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SaysSoon(EntropyPriority):
    """Claims a wait, in words."""

    max_wait_s: ClassVar[Any] = "soon"


def drawn(prop: Property, law: Any, lanes: int, **fixed: Any) -> Cases:
    cases = draw(prop.space(law), np.random.default_rng(0), lanes)
    return cases | {name: np.full(lanes, value) for name, value in fixed.items()}


def test_a_loop_that_blows_up_within_the_early_steps_is_not_calm() -> None:
    law = EntropyFeedback(gain=8.0 / N, c=1e9, rate=1e9)  # 13 times what two late steps bear
    cases = drawn(Delay(), law, 256, late=2, n=50_257, plant="peak", start=2e-3)
    ((_, picked, plant),) = by_plant(cases)
    path = run(law, plant, Delay()._loop(picked))
    sizes = np.maximum(np.abs(path.error), np.abs(path.error_in))
    early, late = sizes[: micro.EARLY].max(axis=0), np.abs(path.error[-micro.TAIL :]).max(axis=0)
    blown = (late <= early) & (late > 20.0 * sizes[0])
    assert blown.mean() > 0.2, "as far out early as late: the early error alone would excuse them"
    assert (excess(Delay().measure(law, picked))[blown] > 0.0).all()
    story = Delay().story(law, case_of(picked, int(np.argmax(blown))))
    assert story[-1].endswith("it ends further out than it began")


def test_a_sound_loop_swings_nowhere_near_what_is_forbidden() -> None:
    law = EntropyFeedback(gain=0.6 / N, c=1e9, rate=1e9)  # .618 is the linear limit
    cases = drawn(Delay(), law, 512, late=2, n=50_257, plant="peak")
    ((_, picked, plant),) = by_plant(cases)
    path = run(law, plant, Delay()._loop(picked))
    assert (np.abs(path.error).max(axis=0) < 0.2 * FAR * np.abs(path.error_in[0])).all()
    assert (excess(Delay().measure(law, picked)) <= 0.0).all()


PLANTS = {
    "peak": ["n"],
    "levels": ["n", "spread", "z1", "z2", "z3", "share1", "share2"],
    "random": ["seed", "spread"],
    "recorded": ["seed"],
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_case_line_names_what_its_plant_reads_and_the_rest_changes_nothing(plant: str) -> None:
    law = EntropyFeedback()
    cases = drawn(Delay(), law, 1, plant=plant)
    line = case_line(case_of(cases, 0))
    shown = {part.split(" = ")[0] for part in line.removeprefix("case: ").split(", ")}
    assert shown == {"plant", "t_star", "pace", "side", "start", "late", *PLANTS[plant]}
    other = draw(Delay().space(law), np.random.default_rng(1), 1)
    moved = cases | {name: other[name] for name in cases.keys() - shown}
    assert Delay().measure(law, moved).value == Delay().measure(law, cases).value


def test_a_case_line_keeps_the_seed_where_it_draws_the_noise() -> None:
    cases = drawn(Tube(), EntropyFeedback(), 1, plant="peak")
    for noise, named in (("random", True), ("alternating", True), ("worst", False)):
        line = case_line(case_of(cases | {"noise": np.array([noise])}, 0))
        assert (", seed = " in line) == named


def test_a_case_line_drops_a_mask_that_is_never_off_and_the_seed_of_no_draw() -> None:
    case = {"h_a": 1.0, "pattern": "ramp", "seed": 3, "on_for": 0, "off_for": 4}
    assert case_line(case) == "case: h_a = 1.0, pattern = ramp, on_for = 0"
    case |= {"pattern": "random", "on_for": 2}
    assert case_line(case).endswith("seed = 3, on_for = 2, off_for = 4")
    assert case_line({"script": "step 1", "pattern": "cold", "seed": 2}).endswith("seed = 2")


def test_a_claimed_wait_that_is_no_number_is_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match="max_wait_s must be a number; got max_wait_s='soon'"):
        aging(SaysSoon())


@pytest.mark.parametrize(
    "prop", [priority.PROPERTIES[3], starvation.PROPERTIES[0]], ids=lambda p: p.name
)
def test_a_claim_that_is_no_number_is_one_clear_note(prop: Property) -> None:
    target = resolve("tests.verify.test_reach:SaysSoon")
    found = check(prop, target.parts[0], target, get_budget("ci", lanes=8))
    assert found.verdict is Verdict.VIOLATED
    assert found.note.count("max_wait_s must be a number; got max_wait_s='soon'") == 1
    assert "format code" not in found.note
