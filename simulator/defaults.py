"""What a command assumes when the user says nothing, derived from trace and profile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from controllers.core import require
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from traces import profiles
from traces.profile import Profile

if TYPE_CHECKING:
    from traces.store import Trace

DATA = Path(__file__).parent.parent / "traces" / "data"
TRACE = DATA / "smollm2_recorded.parquet"
PROFILE = profiles.CPU

UTILISATION = 0.75  # of capacity: loaded, with queues that come and go, and stable
TTFT_SLACK = 3.0  # SLO: so many times the longest recorded prompt's prefill on an idle server
TPOT_SLACK = 3.0  # SLO: so many times a dense decode step of a full batch


def find_profile(model: str, gpu: str, tp: int = 1, *, roofline: bool = False) -> Profile:
    """Return the shipped profile of ``model`` on ``tp`` GPUs; an error lists what there is.

    With ``roofline`` the law comes from datasheet numbers instead, never otherwise.
    """
    if not roofline:
        return profiles.find_profile(model, gpu, tp)
    from traces.profiles_devices import find_device
    from traces.profiles_shapes import find_shape
    from traces.roofline import roofline_profile

    return roofline_profile(find_shape(model), find_device(gpu), tp)


def limits_for(
    profile: Profile,
    page_tokens: int,
    *,
    max_seqs: int | None = None,
    token_budget: int | None = None,
    pages: int | None = None,
) -> EngineLimits:
    """Return the profile's engine limits with pages of the trace's size, and the user's changes.

    A pool counted in the profile's pages becomes as many of ours as hold the same tokens.
    """
    known = EngineLimits.from_json(profile.limits)
    return EngineLimits(
        max_seqs=known.max_seqs if max_seqs is None else max_seqs,
        token_budget=known.token_budget if token_budget is None else token_budget,
        n_pages=known.n_pages * known.page_tokens // page_tokens if pages is None else pages,
        max_context=known.max_context,
        page_tokens=page_tokens,
    )


def capacity_per_s(trace: Trace, law: StepLaw, limits: EngineLimits) -> float:
    """Return the requests per second that one replica finishes with a full dense batch.

    One over the mean request's share of a full batch's time: its decode rows, a batch-th of each
    step's fixed cost, the KV it reads, and its prompt. Below capacity batches are smaller and each
    token dearer, so a server at 75 % of it is busy for more than 75 % of the time.
    """
    prompt = np.array([r.prompt_tokens for r in trace.requests], np.float64)
    output = np.array([r.output_tokens for r in trace.requests], np.float64)
    batch = min(limits.max_seqs, max(1.0, limits.n_pages / _mean_pages(prompt, output, limits)))
    kv_read = output * prompt + output * (output + 1.0) / 2.0
    seconds = (
        output * law.decode_row_s(batch)
        + law.per_kv_token_s * kv_read
        + law.per_prompt_token_s * prompt
        + law.per_prompt_square_s * prompt**2
    )
    require(float(seconds.mean()) > 0.0, "the step law must cost something", step_law=law)
    return 1.0 / float(seconds.mean())


def ttft_slo_s(trace: Trace, law: StepLaw) -> float:
    """Return the default deadline of the first token, seconds."""
    longest = max(r.prompt_tokens for r in trace.requests)
    return TTFT_SLACK * law.step_s(0, 0, longest, longest * longest)


def tpot_slo_s(trace: Trace, law: StepLaw, limits: EngineLimits) -> float:
    """Return the default bound on the time per output token, seconds."""
    contexts = [r.prompt_tokens + r.output_tokens / 2 for r in trace.requests]
    kv_tokens = limits.max_seqs * float(np.mean(contexts))
    return TPOT_SLACK * law.step_s(limits.max_seqs, kv_tokens, 0, 0)


def _mean_pages(prompt: np.ndarray, output: np.ndarray, limits: EngineLimits) -> float:
    return float(np.mean((prompt + output) / limits.page_tokens)) + 0.5
