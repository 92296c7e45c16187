"""Scripts an adversary tries before any random one: what has broken servers before."""

from __future__ import annotations

from reports.verify.property import Case
from reports.verify.serving_subject import SETTING_SPACE, Setting

_OPENINGS = (
    # Three or four decode side by side and outgrow the pool: preemption, readmission.
    (Setting(n_pages=13), "submit 5 15; submit 6 15; submit 7 15; submit 8 15; step 20"),
    # A large request does not fit; small ones that cost less arrive behind it.
    (Setting(n_pages=11), "submit 17 4; submit 24 1; step 1; submit 1 1; step 1; submit 1 1"),
    # Prompts of several steps each, in a budget that takes one part at a time.
    (Setting(n_pages=11, token_budget=4, max_seqs=2), "submit 20 2; submit 20 2; submit 20 2"),
    # Everybody is displaced after every token.
    (
        Setting(max_seqs=2, quantum=1),
        "submit 9 6; submit 9 6; submit 5 6; step 4; submit 3 6; wait 3000; submit 3 6",
    ),
    # Users leave while they wait, while they run, and in the middle of a step.
    (
        Setting(max_seqs=2),
        "submit 9 9; submit 5 9; submit 5 9; step 3; cancel 2; cancel_during_step 1; cancel 0",
    ),
    # Switched off and greedy ones among the others, and rows that fail.
    (
        Setting(fail_percent=10),
        "submit 5 15; submit_greedy 5 15; submit 5 15; step 4; disable 0; wait 100; submit 5 15",
    ),
    # The longest there may be, in the smallest pool, displaced by its like again and again.
    (
        Setting(n_pages=10, max_seqs=2, quantum=1),
        "submit 25 15; submit 20 15; step 3; wait 99999; submit 9 15; submit 38 2; step 5",
    ),
    # Many short ones through one slot.
    (Setting(max_seqs=1), "submit 1 1; submit 2 2; submit 3 3; submit 2 2; submit 1 1"),
)


def openings(stops: tuple[int, ...]) -> list[Case]:
    """Return every opening with every chance of a stop in ``stops``, percent."""
    return [
        {
            **{name: getattr(setting, name) for name in SETTING_SPACE},
            "stop_percent": percent,
            "script": script,
        }
        for setting, script in _OPENINGS
        for percent in stops
    ]
