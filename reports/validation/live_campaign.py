"""A live validation from start to end: record, measure run by run, simulate the same, compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import gmtime, monotonic, strftime
from typing import Any

from backend.models import LoadedModel
from backend.place import device_name
from controllers.presets import get_preset
from controllers.steplaw import StepLaw
from reports.bench.text import text_name, token_rows
from reports.validation.live_disturbed import Tries, references_of
from reports.validation.live_drift import measure_drift
from reports.validation.live_load import (
    CLOSED,
    OVERLOAD,
    Asked,
    LiveError,
    LiveOptions,
    Spec,
    asked_of,
    recorded_requests,
)
from reports.validation.live_observed import Observed
from reports.validation.live_play import Machine, Text, play
from reports.validation.live_profile import check_device, check_model, resolved_limits
from reports.validation.live_record import prompt_digest, record_prompts
from reports.validation.live_simulate import Twin
from reports.validation.live_store import Folder, Measured, limits_of
from traces.arrivals import Arrivals
from traces.profile import Profile
from traces.store import Trace, read_trace

SETUP_S = 10.0  # of a run, besides its load: a fresh pool, the reference steps, the replay
Note = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """Everything that is fixed before the first run."""

    options: LiveOptions
    arrivals: Arrivals
    profile: Profile
    machine: Machine
    twin: Twin
    folder: Folder
    facts: dict[str, Any]  # as stored in the folder
    rows: Text  # token ids, one row per request
    overload_rows: Text  # the same above capacity

    def asked(self, spec: Spec) -> list[Asked]:
        """Return the requests of a run: its load is a share of what the simulated engine serves."""
        kind = "overload" if spec.overloaded else "below"
        capacity = float(self.facts["capacity_per_s"][kind])
        return asked_of(self.options, self.arrivals, spec, capacity)

    def prompts(self, spec: Spec) -> list[Sequence[int]]:
        """Return the prompts of a run, token ids."""
        rows = self.overload_rows if spec.overloaded else self.rows
        asked = self.asked(spec)
        return [row[: each.request.prompt_tokens] for row, each in zip(rows, asked, strict=True)]

    def simulated(self, spec: Spec) -> Observed:
        """Return the simulation of a run."""
        return self.twin.serve(self.options.preset(spec.preset), self.asked(spec))

    def estimate_s(self, left: Sequence[Spec]) -> float:
        """Return about how long the runs ``left`` will take, by simulation."""
        seconds = 0.0
        for spec in left:
            seen = self.simulated(replace(spec, preset="baseline"))
            ran = seen.requests["finish_ns"].max() - seen.requests["arrival_ns"].min()
            seconds += float(ran) / 1e9 + SETUP_S
        return seconds


def prepare(
    options: LiveOptions,
    arrivals: Arrivals,
    profile: Profile,
    loaded: LoadedModel,
    out: Path,
    *,
    pages: int | None,
    resume: bool,
    commit: str,
    versions: dict[str, str],
    progress: Progress | None = None,
) -> Campaign:
    """Record the prompts if they are not recorded, and fix the capacity that loads are shares of.

    A campaign that goes on keeps the capacity it began with, so that its requests come as before,
    whatever the profile says by now.
    """
    check_device(profile, loaded.device)
    check_model(profile, loaded)
    limits = resolved_limits(profile, loaded, options, pages)
    machine = Machine(
        loaded=loaded, limits=limits, step_law=profile.law, sparse_from=options.sparse_from
    )
    rows = token_rows(loaded, options.requests, options.prompt_tokens[1])
    facts: dict[str, Any] = {
        "options": options.to_json(),
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "device": device_name(loaded.device),
        "arrivals": arrivals.source,
        "text": text_name(),
        "limits": limits.to_json(),
        "step_law": profile.law.to_json(),
        "commit": commit,
        "versions": versions,
        "created": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
    }
    folder = Folder(out)
    trace = _recording(
        machine,
        options,
        arrivals,
        rows,
        folder,
        resume=resume,
        facts=facts,
        versions=versions,
        progress=progress,
    )
    twin = Twin.of(trace, limits, profile.law, options.seed)
    facts["capacity_per_s"] = _capacities(twin, options, arrivals)
    stored = folder.begin(facts, resume=resume)
    machine = replace(machine, step_law=StepLaw.from_json(stored["step_law"]))
    return Campaign(
        options=options,
        arrivals=arrivals,
        profile=profile,
        machine=replace(machine, limits=limits_of(stored)),
        twin=twin,
        folder=folder,
        facts=stored,
        rows=rows,
        overload_rows=token_rows(
            loaded, options.overload_requests, options.overload_prompt_tokens[1]
        ),
    )


def measure(
    campaign: Campaign,
    note: Note,
    *,
    between: Callable[[], None] | None = None,
    stop_after_s: float = math.inf,
) -> int:
    """Make the runs that are not there yet, each written as soon as it is over; return those left.

    Disturbed runs are played again when all others are there. ``between`` is called before every
    run. No run begins once ``stop_after_s`` seconds have passed, but the first.
    """
    began = monotonic()
    tries = Tries(campaign.folder, campaign.options)
    left = tries.left()
    if not left:
        return 0
    note(
        f"{len(left)} of {len(tries.wanted)} runs left, about "
        f"{campaign.estimate_s(left) / 60:.0f} min; "
        f"capacity {campaign.facts['capacity_per_s']['below']:.3g} requests/s by simulation"
    )
    measure_drift(campaign.machine, campaign.twin, campaign.rows)  # warms up; not kept
    while left:
        spec = left[0]
        if between is not None:
            between()
        run = _measured(campaign, spec, order=len(tries.made))
        campaign.folder.write(run)
        tries = Tries(campaign.folder, campaign.options)
        left = tries.left()
        total = run.seen.requests["finish_ns"].max() - run.seen.requests["arrival_ns"].min()
        before, after = (f"{100 * (each - 1):+.1f} %" for each in references_of(run.facts))
        note(
            f"{len(tries.made)} done, {len(left)} left: {spec.preset} at {_load(spec)}, "
            f"repeat {spec.repeat}, try {spec.attempt + 1}: {total / 1e9:.0f} s, "
            f"reference steps {before} before, {after} after"
            + (", disturbed" if tries.disturbed(run) else "")
        )
        if monotonic() - began >= stop_after_s:
            break
    return len(left)


def _measured(campaign: Campaign, spec: Spec, *, order: int) -> Measured:
    drift = measure_drift(campaign.machine, campaign.twin, campaign.rows)
    played = play(
        campaign.machine,
        campaign.options.preset(spec.preset),
        campaign.asked(spec),
        campaign.prompts(spec),
    )
    after = measure_drift(campaign.machine, campaign.twin, campaign.rows)
    facts = {
        "drift": asdict(drift),
        "drift_after": asdict(after),
        "order": order,
        "created": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
    }
    return Measured.of(spec, played, facts)


def _capacities(twin: Twin, options: LiveOptions, arrivals: Arrivals) -> dict[str, float]:
    """Return the rate at which the simulated engine saturates, of either mix of requests."""
    baseline = get_preset("baseline")
    loads = {"below": CLOSED}
    if max(options.loads) > OVERLOAD:
        loads["overload"] = max(options.loads)
    return {
        kind: twin.capacity_per_s(
            baseline,
            asked_of(options, arrivals, Spec(preset="baseline", load=load, repeat=0), 1.0),
        )
        for kind, load in loads.items()
    }


def _recording(
    machine: Machine,
    options: LiveOptions,
    arrivals: Arrivals,
    rows: Text,
    folder: Folder,
    *,
    resume: bool,
    facts: dict[str, Any],
    versions: dict[str, str],
    progress: Progress | None,
) -> Trace:
    """Return the campaign's recording, made now unless it is there."""
    requests = recorded_requests(options, arrivals)
    prompts = [row[: each.prompt_tokens] for row, each in zip(rows, requests, strict=True)]
    wanted = [prompt_digest(prompt) for prompt in prompts]
    if not folder.recording.is_file():
        folder.path.mkdir(parents=True, exist_ok=True)
        record_prompts(
            machine,
            requests,
            prompts,
            folder.recording,
            source=str(facts["text"]),
            commit=str(facts["commit"]),
            versions=versions,
            progress=progress,
        )
    elif not resume:
        raise LiveError(f"{folder.recording}: is there: give --resume, or another --out")
    trace = read_trace(folder.recording)
    if trace.metadata["weights_sha256"] != machine.loaded.weights_sha256:
        raise LiveError(f"{folder.recording}: weights_sha256: must be those of the model served")
    if [row.prompt_sha256 for row in trace.requests] != wanted:
        raise LiveError(f"{folder.recording}: prompt_sha256: must be those of this campaign")
    return trace


def _load(spec: Spec) -> str:
    return "once" if spec.closed else f"{spec.load:.0%}"
