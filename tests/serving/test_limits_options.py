"""Options of the engine limits are off unless named, in files too."""

from __future__ import annotations

import pytest

from controllers.serving.limits import OPTIONS, EngineLimits

PLAIN = {"max_seqs": 2, "token_budget": 8, "n_pages": 4, "max_context": 32, "page_tokens": 4}


def test_limits_without_options_read_and_write_as_before():
    assert EngineLimits.from_json(PLAIN).to_json() == PLAIN


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_on_is_written(name: str):
    limits = EngineLimits.from_json({**PLAIN, name: True})
    assert getattr(limits, name)
    assert EngineLimits.from_json(limits.to_json()) == limits
    with pytest.raises(ValueError, match=f"{name} must be true or false"):
        EngineLimits.from_json({**PLAIN, name: 1})


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="exactly their own names"):
        EngineLimits.from_json({**PLAIN, "keeps": True})
