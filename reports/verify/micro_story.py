"""A micro loop told as a small table: the telling steps, and one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reports.verify.micro_cases import plant_of, plant_words
from reports.verify.micro_loop import Loop, Path, run
from reports.verify.property import Case, Cases, lanes_of

ROWS = 11
HEAD = (
    f"{'step':>5} {'T measured':>10} {'H':>8} {'H*':>8} {'T command':>10} {'T*':>8} {'error':>10}"
)


def loop_story(
    law: Any,
    case: Case,
    loop: Callable[[Cases], Loop],
    verdict: Callable[[Path], str],
) -> list[str]:
    """Run one case and return its plant, its table and its verdict as lines of text."""
    cases = lanes_of(case)
    path = run(law, plant_of(case["plant"], cases), loop(cases))
    return [f"plant: {plant_words(case)}", *table(path, telling_steps(path)), verdict(path)]


def telling_steps(path: Path, *extra: int) -> list[int]:
    """Choose at most 12 steps: the start, the largest error, the end, and evenly growing gaps."""
    last = len(path.u) - 1
    worst = int(np.argmax(np.abs(path.error[:, 0])))
    wanted = [0, last, worst, *extra, 1, last - 1, last - 2, 2, 3]
    steps = {step for step in wanted if 0 <= step <= last}
    for step in np.unique(np.geomspace(4, max(last, 4), ROWS).astype(int)):
        if len(steps) <= ROWS and step <= last:
            steps.add(int(step))
    return sorted(steps)


def table(path: Path, steps: list[int]) -> list[str]:
    """Return the head and one line per step of the first lane; entropies in nats, error in ln T."""
    lines = [HEAD]
    for t in steps:
        x_in, u, star, h, _, target = (column[t, 0] for column in path)
        temperatures = np.exp([x_in, u, star])
        lines.append(
            f"{t:>5} {temperatures[0]:>10.4f} {h:>8.4f} {target:>8.4f} {temperatures[1]:>10.4f} "
            f"{temperatures[2]:>8.4f} {u - star:>+10.4f}"
        )
    return lines
