"""The backend tests' models, each made once, and the threads they run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from backend.models import LoadedModel, load
from tests.backend.tiny import tiny_model


@pytest.fixture(autouse=True, scope="module")
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread for tiny models, where threads cost more than they give, and rounding varies."""
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request.module, "THREADS", 1))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    """The default model, downloaded and converted at first use."""
    return load()
