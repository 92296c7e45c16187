from __future__ import annotations

from typing import get_args

import pytest

from simulator.cluster import RouterName
from simulator.commands import RouterOption

COMMANDS = {
    ("simulate",): ("--trace", "--preset", "--rate", "--arrivals", "--ledger-out", "--json"),
    ("ablate",): ("--seeds", "--trace", "--jobs", "--json"),
    ("report",): ("--out", "--seeds"),
    ("demo",): ("--out", "--quick"),
    ("generate",): (
        "--stop",
        "--stream",
        "--page-budget",
        "--no-prefix-cache",
        "--shadow",
        "--json",
    ),
    ("chat",): ("--preset", "--system", "--stop"),
    ("trace", "info"): ("--json",),
    ("verify",): ("--replay", "--certificates", "--lanes", "--json"),
    ("prove",): ("--lanes", "--jobs", "--json"),
    ("claims",): ("--out", "--only", "--json"),
    ("variance",): ("--live", "--seeds", "--json"),
    ("estimators",): ("--k", "--out", "--json"),
    ("figures",): ("--out", "--seed"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_its_options(cli, command):
    done = cli(*command, "--help")
    assert done.exit_code == 0
    for option in COMMANDS[command]:
        assert option in done.output


def test_the_command_line_lists_every_command(cli):
    done = cli("--help")
    assert done.exit_code == 0
    for command in COMMANDS:
        assert command[0] in done.output


def test_the_router_option_names_every_router():
    (option,) = RouterOption.__metadata__
    for name in get_args(RouterName):
        assert name in option.help
