"""The page's sections, in order: to add one, write a function and name it in ``SECTIONS``.

A section reads the evidence and returns its part of the page, or None where it has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from reports.committed import parity, stability
from reports.committed_laws import estimators, variance
from reports.figures.forest import forest
from reports.figures.latency import latency_against_load
from reports.figures.pages import pages_kept
from reports.figures.response import entropy_response
from reports.figures.sign_error import sign_error
from reports.live import PRESET, USER_TEMPERATURE, control_text
from reports.notes import INTERVALS, footer, matched_verdict
from reports.parts import Evidence, Part
from reports.studies.ablation import Ablation
from reports.tables import (
    PAGE_COLUMNS,
    ablation_grid,
    difference_grid,
    html_table,
    matched_grid,
)
from reports.validation.live_section import live, live_growth, live_trajectories
from reports.validation.section import golden, golden_sensitivity
from simulator.caveats import sparse_line


def live_replies(found: Evidence) -> Part | None:
    """Show what the real model said under control."""
    if not found.replies:
        return None
    blocks = "".join(
        f"<blockquote><p><b>{escape(reply.prompt)}</b></p><pre>{escape(reply.text)}</pre>"
        f"<p><small>{escape(reply.task_class)}, {reply.tokens} tokens, "
        f"{escape(reply.finish_reason)}{escape(control_text(reply))}</small></p></blockquote>"
        for reply in found.replies
    )
    intro = (
        f"<p>Generated just now on this machine under <code>{PRESET}</code>, from T = "
        f"{USER_TEMPERATURE:g}. The model is small; the text shows that the loop runs live, not "
        "that control makes it better. Short contexts are read densely, hence coverage 1.</p>"
    )
    return Part(name="live", title="Live text under control", html=intro + blocks)


def ablation_table(found: Evidence) -> Part:
    """Show every preset, means and paired differences."""
    notes = "".join(f"<li>{escape(line)}</li>" for line in footer(found.ablation))
    means = html_table(
        ablation_grid(found.ablation, PAGE_COLUMNS), f"Means ± 95 % half-width; {INTERVALS}."
    )
    pairs = html_table(
        difference_grid(found.ablation),
        f"Paired difference to baseline, per cent ± 95 % half-width; {INTERVALS}.",
    )
    matched = html_table(
        matched_grid(found.ablation),
        "Each preset beside the one fixed temperature that has its mean entropy on the same "
        "tokens; nats, ± 95 % by bootstrap over prompts; * excludes 0.",
    )
    verdict = f"<p>{escape(matched_verdict(found.ablation))}</p>"
    html = f"{means}{pairs}{matched}{verdict}<ul class=notes>{notes}</ul>"
    return Part(name="ablation", title="Every preset on the same requests", html=html)


def ablation_forest(found: Evidence) -> Part:
    """Draw the differences that matter."""
    return Part(
        name="differences",
        title="What each law changes",
        figure=forest(found.ablation, footer=_runs(found.ablation)),
        caption=(
            "First three panels: each preset's difference to baseline on the same arrivals and "
            "requests. Time moves only where fewer KV bytes are read or where requests queue; "
            f"{sparse_line(found.ablation.scenario)}. Temperature moves no time, because output "
            "lengths are the recording's. Last panel: mean NLL against the one fixed temperature "
            "that has the preset's mean entropy on the same tokens. "
            f"{matched_verdict(found.ablation)} "
            "Attention and scheduling carry baseline's value: users ask for several temperatures, "
            "and those already differ from one constant. Not shown: what a changed temperature "
            "would do to lengths, what pruning does to NLL, and whether likelier text is better."
        ),
    )


def printed_sign(found: Evidence) -> Part:
    """Draw the sign error, and say it in four lines."""
    target = found.ablation.scenario.asking.target_nats
    seed = found.ablation.row("seed").metrics["clip_share"]
    full = found.ablation.row("full").metrics["clip_share"]
    shares = ""
    if seed is not None and full is not None:
        shares = (
            f"<li>Here: T sits on a clip for {100 * seed.mean:.0f} % of tokens under "
            f"<code>seed</code>, {100 * full.mean:.1f} % under <code>full</code>.</li>"
        )
    lines = (
        "<ol><li>The paper prints T⁺ = T·exp(+η(H − H*)): when entropy is too high, heat.</li>"
        "<li>But dH/d ln T = Var(ln p) ≥ 0: heating raises entropy further. It is positive "
        "feedback; an error grows by the factor 1 + ηV per token.</li>"
        "<li>With a minus sign the same law is stable for η ≤ 2/N<sub>n</sub>, N<sub>n</sub> the "
        "largest varentropy of n outcomes.</li>"
        f"{shares}</ol>"
    )
    return Part(
        name="sign_error",
        title="The sign error in four lines",
        html=lines,
        figure=sign_error(found.ablation.first, target_nats=target, footer=_first(found.ablation)),
        caption=(
            "The same recorded requests under three presets. Coloured: median over requests and "
            "its quartiles; grey: the three longest requests. Under the printed sign temperature "
            "runs to a clip and stays; under the corrected sign it wanders about where entropy "
            "meets the set-point. Entropies off the recorded path are read from recorded curves "
            "of the same logits: the text that another temperature would have written is not here."
        ),
    )


def sparse_headroom(found: Evidence) -> Part:
    """Draw pages kept against coverage and context."""
    rows = list(found.trace_info["kept_share"])
    tokens = found.trace_info["tokens"]
    return Part(
        name="pages_kept",
        title="How many KV pages a coverage needs",
        figure=pages_kept(
            rows, footer=f"{tokens:,} recorded tokens; labels: tokens in the context"
        ),
        caption=(
            "Share of 16-token pages kept, mean over layers and KV heads, after pins and floors. "
            "Longer contexts need a smaller share; the gap between the panels is what a better "
            "page score could still save. Not shown: what the dropped mass does to the text; "
            "entropic trace info prints the entropy shift and KL on the recorded subsample."
        ),
    )


def response(found: Evidence) -> Part:
    """Draw H(T)."""
    scenario = found.ablation.scenario
    return Part(
        name="entropy_response",
        title="How entropy answers temperature",
        figure=entropy_response(
            scenario.trace,
            target_nats=scenario.asking.target_nats,
            footer=f"{found.trace_info['requests']} recorded requests; line: median, band: "
            "quartiles over tokens",
        ),
        caption=(
            "H rises with T for every token: the reason the minus sign is right. The band is wide: "
            "one set-point for all tokens asks most of them to move, and where the curve is flat a "
            "change of temperature buys little. Not shown: correlation between tokens."
        ),
    )


def load(found: Evidence) -> Part | None:
    """Draw latency against load."""
    if found.load is None:
        return None
    sweep = found.load
    seeds = f"{len(sweep.seeds)} seed(s), {sweep.scenario.n_requests} requests each"
    return Part(
        name="latency_load",
        title="Latency against load",
        figure=latency_against_load(
            sweep,
            footer=f"{seeds}; capacity {sweep.capacity_per_s:.3g} requests/s; bands: 95 % over "
            "arrival seeds",
        ),
        caption=(
            "The same requests arriving faster. Where reading fewer pages saves more than choosing "
            "them costs, steps are shorter, and near capacity queues too; "
            f"{sparse_line(sweep.scenario)}. Capacity is that of a full dense batch; the step law "
            "is a fit to one machine, so another device moves all lines."
        ),
    )


def _runs(ablation: Ablation) -> str:
    seeds = ablation.seeds
    n_requests = ablation.scenario.n_requests
    return f"{len(seeds)} seed(s) ({seeds[0]}-{seeds[-1]}), {n_requests} requests each; {INTERVALS}"


def _first(ablation: Ablation) -> str:
    return f"seed {ablation.seeds[0]}, n = {ablation.scenario.n_requests} requests per preset"


Section = Callable[[Evidence], Part | None]
SECTIONS: tuple[Section, ...] = (
    ablation_table,
    ablation_forest,
    printed_sign,
    response,
    sparse_headroom,
    load,
    parity,
    golden,
    golden_sensitivity,
    live,
    live_growth,
    live_trajectories,
    stability,
    variance,
    estimators,
    live_replies,
)
