"""What a profile must be for a live validation: of this machine and model, with limits."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from backend.models import LoadedModel
from backend.place import device_name
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from reports.validation.live_load import LiveError, LiveOptions
from traces.profile import Profile


def resolved_limits(
    profile: Profile, loaded: LoadedModel, options: LiveOptions, pages: int | None
) -> EngineLimits:
    """Return the limits the engine will run under: the profile's, and a pool no larger than needed.

    Raises:
        LiveError: the profile states no limits, or the longest request does not fit them.
    """
    try:
        stated = EngineLimits.from_json(dict(profile.limits))
    except ValueError as error:
        raise LiveError(f"profile: limits: {error}") from None
    most = max(options.prompt_tokens[1], options.overload_prompt_tokens[1])
    longest = most + options.max_tokens
    context = min(stated.max_context, loaded.max_context)
    if longest > context:
        raise LiveError(
            f"prompt_tokens: the longest prompt and its reply must fit {context} tokens; "
            f"got {longest}"
        )
    needed = stated.max_seqs * (stated.pages_for(longest) + 1)
    return replace(
        stated,
        max_context=context,
        n_pages=min(stated.n_pages, needed) if pages is None else pages,
    )


def check_device(profile: Profile, device: torch.device) -> None:
    """Raise ``LiveError`` for a profile of another device."""
    here = device_name(device)
    if profile.device != here:
        raise LiveError(f"profile: device: must be this machine's {here!r}; got {profile.device!r}")


def check_model(profile: Profile, loaded: LoadedModel) -> None:
    """Raise ``LiveError`` for a profile of another model."""
    if profile.model != loaded.name:
        raise LiveError(
            f"profile: model: must be the one served, {loaded.name!r}; got {profile.model!r}"
        )


def rescaled_law(law: StepLaw, factor: float) -> StepLaw:
    """Return a law whose every second is ``factor`` seconds; what is no time stays."""
    if type(law) is not StepLaw:
        raise LiveError(f"rescale: needs a law of coefficients; got {type(law).__name__}")
    if not (math.isfinite(factor) and factor > 0.0):
        raise LiveError(f"rescale: the drift must be finite and > 0; got {factor!r}")
    row = law.to_json()
    return StepLaw.from_json(
        {name: factor * row[name] if name.endswith("_s") else row[name] for name in row}
    )
