"""Hypothesis profiles and the fixtures every folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two torch processes with a thread pool each on few cores spin against each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton looks once, when it is first imported, and transformers imports it: without a GPU its
# kernels are to be interpreted. A driver's device file tells without the cost of importing torch.
if any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # unset, Triton 3.9 warns
else:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Timing varies on shared machines: no profile has a deadline or minds slow generation.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **_COMMON)
settings.register_profile("ci", max_examples=100, derandomize=True, database=None, **_COMMON)
settings.register_profile("prove", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public arrival traces and prompts; skips visibly when it is absent."""
    value = os.environ.get("ENTROPIC_DATA", "")
    if not value:
        pytest.skip("ENTROPIC_DATA is not set: public traces and prompts are not here")
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"ENTROPIC_DATA must name a folder; got {value!r}")
    return path
