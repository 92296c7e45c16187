"""What a plan rests on: the sentences a reader must see before buying anything."""

from __future__ import annotations

from simulator.caveats import profile_lines, shift_line, sparse_line
from simulator.join import join_line
from simulator.plan import Plan
from simulator.plan_bracket import RUNG
from simulator.plan_edge import edge_lines


def plan_notes(plan: Plan) -> list[str]:
    """Return one line per thing that the figures rest on."""
    scenario, question = plan.setup.scenario, plan.question
    traced, planned = str(scenario.trace.metadata["model"]), scenario.profile.model
    blocks, draws = plan.setup.blocks, question.draws
    lines = [
        *edge_lines(plan),
        f"intervals: where another recording of this traffic, as long as this one, falls with 95 "
        f"%, from {draws} resamples in blocks of {blocks.length} requests ({blocks.reason}), each "
        "with its own join and residuals; more of them do not narrow it below the traffic's own "
        "spread",
        "a level is met where the recording meets it and the far edge of every interval does",
        "a resample keeps bursts up to a block and no longer trend; the recording keeps its own",
        f"a knee is the largest rate on a ladder of {100 * (RUNG - 1):.0f} % steps that one server "
        "meets the level at; traffic is stretched in time, so its shape is kept",
    ]
    if traced == planned:
        lines.append(f"the traced model is the planned model ({planned})")
    lines += profile_lines(scenario)
    lines += _machine_lines(plan)
    lines += _counted(plan)
    lines.append("output lengths are the arrival trace's, whatever the temperature")
    lines.append("NLL is that of dense attention: what pruning costs is quoted, not simulated")
    return [*lines, shift_line(scenario), sparse_line(scenario)]


def _machine_lines(plan: Plan) -> list[str]:
    profile, limits = plan.setup.scenario.profile, plan.setup.scenario.limits
    estimated = ", estimated" if profile.limits_estimated else ""
    lines = [
        f"limits of a server{estimated}: {limits.n_pages} KV pages of {limits.page_tokens} tokens, "
        f"{limits.max_seqs} sequences, {limits.token_budget} tokens a step"
    ]
    if profile.fit_error:
        worst = max(profile.fit_error.items(), key=lambda one: one[1])
        lines.append(f"largest error of the step law's fit: {worst[0]} {worst[1]:.3g}")
    if plan.price.usd_per_gpu_hour is None:
        lines.append("no price is known: give --usd-per-hour for money")
    else:
        lines.append(
            f"{plan.price.usd_per_gpu_hour:g} USD per GPU hour, {plan.price.gpus} GPU(s) a server, "
            "every server up for the whole span"
        )
    return lines


def _counted(plan: Plan) -> list[str]:
    """Say how far recordings and profile had to be stretched, in the reference's recording."""
    reference = plan.reference
    found = {
        name.removeprefix("caveat."): round(value)
        for name, value in reference.fewest.recorded.items()
        if name.startswith("caveat.") and value is not None
    }
    lines = [join_line(found)] if "join_requests" in found else []
    if found.get("steps_unchecked"):
        lines.append(
            "the limits allow steps outside the range that the step law was fitted on; a plan does "
            "not keep steps to count them: entropic simulate does"
        )
    if found.get("prompt_squares_beyond_profile"):
        lines.append("the longest prompts' last chunks lie outside what the step law was fitted on")
    not_done = reference.fewest.recorded.get("requests_not_completed")
    if not_done:
        lines.append(f"{not_done:.0f} requests were refused or failed, and more servers help none")
    if plan.setup.arrivals.prefixes is not None:
        lines.append("prompts that begin alike are computed anew each time: reuse is not counted")
    return lines
