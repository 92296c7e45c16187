"""The profile that a campaign times between its own runs, and simulates with."""

from __future__ import annotations

from dataclasses import replace
from time import gmtime, strftime

from backend.profile import ProfileOptions
from backend.profile_store import PassStore
from backend.profile_turns import Turns
from reports.validation.live_campaign import Campaign
from reports.validation.live_load import specs

STEPS, PROFILE = "profile_steps.jsonl", "profile.json"
LONGEST = 2048  # context of the grid, as of ``entropic profile run``


def turns_of(campaign: Campaign) -> Turns | None:
    """Return the turns of a campaign, as far as taken; None where it has none."""
    options, limits, facts = campaign.options, campaign.machine.limits, campaign.facts
    if options.profile_passes == 0:
        return None
    return Turns(
        campaign.machine.loaded,
        ProfileOptions(
            repeats=options.profile_passes,
            max_seqs=limits.max_seqs,
            max_context=min(LONGEST, limits.max_context),
            token_budget=limits.token_budget,
            seed=options.seed,
        ),
        lambda header: PassStore(campaign.folder.path / STEPS, header),
        turns=len(specs(options)),
        commit=str(facts["commit"]),  # of the campaign's beginning
        versions=dict(facts["versions"]),
    )


def repriced(campaign: Campaign, turns: Turns) -> Campaign:
    """Return the campaign with a simulator priced by all turns; the profile goes to the folder."""
    turns.catch_up()
    measured = turns.measured(strftime("%Y-%m-%dT%H:%M:%S+00:00", gmtime()))
    measured.write(campaign.folder.path / PROFILE)
    profile = measured.profile
    return replace(campaign, profile=profile, twin=replace(campaign.twin, step_law=profile.law))
