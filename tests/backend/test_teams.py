"""The OpenMP team of a thread that has done its part."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from backend.teams import release_team

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted in /proc")
@pytest.mark.skipif(
    not list((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")),
    reason="torch computes with another OpenMP",
)
def test_a_released_team_is_gone_and_comes_back_when_it_is_needed():
    counted: list[int] = []
    numbers = torch.arange(1 << 20, dtype=torch.float64)
    sums: list[float] = []

    def compute() -> None:
        torch.set_num_threads(2)
        counted.append(len(list(TASKS.iterdir())))
        for _ in range(2):
            sums.append(float(torch.sin(numbers).sum()))
            counted.append(len(list(TASKS.iterdir())))
            release_team()
            counted.append(len(list(TASKS.iterdir())))

    before = torch.get_num_threads()
    try:
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    alone, with_team, released, again, again_released = counted
    assert with_team == again == alone + 1
    assert released == again_released == alone
    assert sums[0] == sums[1]
