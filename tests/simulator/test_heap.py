"""Memory that a simulation no longer holds goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import sys
import numpy as np
from simulator.heap import LARGE_BYTES, keep_large_arrays_apart

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "apart":
    assert keep_large_arrays_apart()
held, before = [], resident_mb()
for _ in range(2):  # only the first finds glibc as it starts
    large = []
    for _ in range(12):
        large.append(np.ones(LARGE_BYTES + 4096, np.uint8))
        held.append(np.ones(100_000, np.uint8))  # what a run keeps, between what it does not
    large.clear()
print(resident_mb() - before)
"""


def left_mb(how: str) -> float:
    made = subprocess.run(
        [sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True
    )
    return float(made.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_arrays_that_were_freed_leave_no_holes_between_what_is_kept() -> None:
    apart = left_mb("apart")
    assert apart < 6.0  # 2.3 MB are held
    assert apart < left_mb("as it is") - 20.0
