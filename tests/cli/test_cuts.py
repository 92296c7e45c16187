"""Truncation options of ``generate``: their order, and one line for a bad value."""

from __future__ import annotations

import pytest

from backend.commands import cuts
from controllers.samplers import MinP, TopK, TopNSigma, TopP


def test_options_become_stages_in_a_fixed_order() -> None:
    found = cuts(top_k=40, top_p=0.9, min_p=0.05, top_n_sigma=1.0)
    assert found == (TopNSigma(n=1.0), TopK(k=40), TopP(p=0.9), MinP(p_base=0.05))
    assert cuts(top_k=None, top_p=None, min_p=None, top_n_sigma=None) == ()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--top-p", "2", "error: p must lie in (0, 1]; got p=2.0"),
        ("--top-k", "0", "error: k must be >= 1; got k=0"),
        ("--min-p", "0", "error: p_base must lie in (0, 1]; got p_base=0.0"),
        ("--top-n-sigma", "-1", "error: n must be positive; got n=-1.0"),
    ],
)
def test_a_bad_cut_is_one_line_before_the_model_loads(cli, option, value, message) -> None:
    done = cli("generate", "hi", option, value)
    assert done.exit_code == 2
    assert done.stderr.strip() == message
