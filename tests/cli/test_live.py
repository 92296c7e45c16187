"""What ``generate`` and ``chat`` refuse before a model is loaded."""

from __future__ import annotations

import pytest

REFUSED = {  # options -> what the one line must name
    ("--preset", "fastest"): ("preset", "'fastest'"),
    ("--temperature", "-1"): ("temperature", "-1.0"),
    ("--temperature", "nan"): ("temperature", "nan"),
    ("--max-tokens", "0"): ("max_tokens", "0"),
    ("--target-nats", "-2"): ("target_nats", "-2.0"),
    ("--stop", ""): ("stop", "''"),
    ("--stop", "a", "--stop", ""): ("stop", "''"),
    ("--top-k", "0"): ("k", "0"),
    ("--top-p", "1.5"): ("p", "1.5"),
    ("--min-p", "-1"): ("p_base", "-1.0"),
}
GENERATE_ALONE = {
    ("--min-coverage", "1.5"): ("min_coverage", "1.5"),
    ("--stop-token-id", "-1"): ("stop_token_id", "-1"),
    ("--page-budget", "1"): ("kv_budget_pages", "1"),
    ("--stream", "--json"): ("stream", "json"),
    ("--top-n-sigma", "-1"): ("n", "-1.0"),
}
CASES = [
    *((("generate", "a prompt"), options) for options in {**REFUSED, **GENERATE_ALONE}),
    *((("chat",), options) for options in REFUSED),
]


@pytest.mark.parametrize(("command", "options"), CASES, ids=lambda each: " ".join(each))
def test_a_bad_option_of_the_live_model_is_one_line_naming_field_and_value(cli, command, options):
    done = cli(*command, *options)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("generating:")]
    assert line.startswith("error: ")
    for word in {**REFUSED, **GENERATE_ALONE}[options]:
        assert word in line
