"""Engine options that only a simulation can honour are refused by the live executor."""

from __future__ import annotations

from typing import cast

import pytest

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from controllers.presets import get_preset
from controllers.serving.limits import OPTIONS, EngineLimits

NO_MODEL = cast(LoadedModel, None)  # refused before it is looked at


@pytest.mark.parametrize("name", OPTIONS)
def test_simulated_options_are_refused_live(name: str):
    limits = EngineLimits(max_seqs=2, token_budget=8, n_pages=4, max_context=32, **{name: True})
    with pytest.raises(ValueError, match=f"limits.{name} is simulated only"):
        LiveExecutor(NO_MODEL, get_preset("baseline"), limits)
