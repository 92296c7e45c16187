"""Bad input, each kind named: refused at construction, or a row of the verifier's report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from controllers.certificates import aging, require_target
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.priority import EntropyPriority
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback, FeedforwardNewton, SeedLiteral
from reports.verify.finding import Verdict
from reports.verify.run import verify
from reports.verify.setting import get_budget
from reports.verify.target import resolve

CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: EntropyFeedback(gain=0.0), "gain must be .*positive.*gain=0.0"),
    (lambda: EntropyFeedback(gain=-0.1), "gain=-0.1"),
    (lambda: EntropyFeedback(gain=math.nan), "gain=nan"),
    (lambda: SeedLiteral(eta=0.0), "eta=0.0"),
    (lambda: SmoothedFeedback(gain=-1.0), "gain=-1.0"),
    (lambda: FeedforwardNewton(kappa=0.0), "kappa=0.0"),
    (lambda: EntropyFeedback(x_min=0.5, x_max=0.5), "x_min=0.5, x_max=0.5"),
    (lambda: FeedforwardNewton(x_min=1.0, x_max=0.0), "x_min=1.0, x_max=0.0"),
    (lambda: FixedCoverage(coverage=0.0), "coverage=0.0"),
    (lambda: FixedCoverage(coverage=1.2), "coverage=1.2"),
    (lambda: EntropyCoverage(p_min=-0.1), "p_min=-0.1"),
    (lambda: EntropyPriority(kappa=0.0), "kappa must be positive; got kappa=0.0"),
    (lambda: require_target(-0.5, 100), "target_nats=-0.5"),
    (lambda: require_target(4.7, 100), r"\[0, ln n = 4.605\]; got target_nats=4.7"),
    (lambda: require_target(math.nan, 100), "target_nats=nan"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[message for _, message in CASES])
def test_a_bad_gain_target_clip_or_coverage_is_refused_by_name(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsWithoutAging:
    """Says that nobody waits longer than a minute, and does not age."""

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False
    kappa: float = 0.0
    max_wait_s: float = 60.0


def test_a_claimed_bound_without_aging_is_refused() -> None:
    with pytest.raises(ValueError, match="kappa"):
        aging(ClaimsWithoutAging())


LAWS = {
    "FewArguments": "    def update(self, state):\n        return state, state[0]\n",
    "Raises": "    def update(self, state, signal):\n        raise KeyError('no such gain')\n",
    "ReturnsOne": "    def update(self, state, signal):\n        return signal.h_in\n",
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_that_cannot_be_called_is_one_violated_row_and_the_rest_is_not_run(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"class {name}:\n"
        "    def init(self, signal):\n        return (signal.x_user * 1.0,)\n"
        "    def x_in(self, state):\n        return state[0]\n" + LAWS[name]
    )
    findings = verify(resolve(f"{path}:{name}"), get_budget("ci", lanes=8))
    assert [f.name for f in findings if f.verdict is Verdict.VIOLATED] == ["contract.callable"]
    assert all(f.verdict is Verdict.UNFIT for f in findings[1:])
    assert findings[0].note or findings[0].story
