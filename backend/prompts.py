"""What a call of the library asks for: its prompts and their parameters, in whatever form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from backend.arguments import short, token_ids
from backend.params import SamplingParams
from controllers.core import require

Prompt = str | Iterable[int] | np.ndarray | Tensor  # text as it is, or token ids


def plain(value: Any) -> Any:
    """Return arrays and tensors as lists, anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray | Tensor) else value


def text_or_ids(prompt: Any) -> str | tuple[int, ...]:
    """Return a prompt as text or as token ids; ``ValueError`` for anything else."""
    given = plain(prompt)
    return given if isinstance(given, str) else token_ids(given)


def prompts_of(prompts: Any) -> list[Any]:
    """Return the prompts of a call; integers in a row are one prompt, other things in a row many.

    The prompts themselves are checked by :func:`text_or_ids`.
    """
    given = plain(prompts)
    if isinstance(given, str):
        return [given]
    strange = isinstance(given, bytes | bytearray | memoryview)
    if strange or not isinstance(given, Sequence | Iterator):
        raise ValueError(f"prompts must be text, token ids, or many of these; got {short(given)}")
    parts = [plain(each) for each in given]
    many = not parts or isinstance(parts[0], Sequence | Iterator)
    return parts if many else [parts]


def params_of(params: Any) -> SamplingParams:
    """Return the parameters of one request; None is the defaults."""
    if params is None:
        return SamplingParams()
    if not isinstance(params, SamplingParams):
        raise ValueError(f"params must be SamplingParams; got {short(params)}")
    return params


def params_each(params: Any, count: int) -> list[SamplingParams]:
    """Return parameters for ``count`` prompts: those given for each, or one's with seed + i."""
    if not isinstance(params, list | tuple):
        same = params_of(params)
        return [replace(same, seed=same.seed + index) for index in range(count)]
    rule = f"params must be one, or one per prompt = {count}"
    require(len(params) == count, rule, params=len(params))
    return [params_of(each) for each in params]
