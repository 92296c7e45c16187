"""The step law: how many seconds one engine step takes, from what it computes and reads.

One affine law prices both worlds: the simulator's clock and the cost signal of the macro law.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import overload

import numpy as np

from controllers.core import require


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """Seconds of a step: one intercept, a decode part and a prefill part (DESIGN section 5).

    decode only: ``base + per_decode*B + per_kv_token*KV``;
    with prompt tokens: ``max(floor, base + per_prompt_token*P + per_prompt_square*Q)`` plus the
    decode part without its intercept. Unequal contexts add ``per_skewed_kv_token*(B*longest - KV)``
    to the decode part. Every coefficient is finite and >= 0, so without that term the law is
    monotone in all its arguments.
    """

    base_s: float  # fixed cost of any step
    per_decode_s: float  # per one-token decode row
    per_kv_token_s: float  # per KV token read by decode rows, kept pages only
    per_prompt_token_s: float  # per prompt (or recomputed) token
    per_prompt_square_s: float  # per unit of prompt_squares
    floor_s: float = 0.0  # shortest step that holds prompt tokens
    per_skewed_kv_token_s: float = 0.0  # per KV token that decode rows fall short of the longest

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(
                math.isfinite(value) and value >= 0.0,
                f"{field.name} must be finite and >= 0",
                **{field.name: value},
            )

    @overload
    def step_s(
        self,
        n_decode: float,
        kv_tokens_read: float,
        prompt_tokens: float,
        prompt_squares: float,
        kv_longest: float = ...,
    ) -> float: ...

    @overload
    def step_s(
        self,
        n_decode: np.ndarray,
        kv_tokens_read: np.ndarray,
        prompt_tokens: np.ndarray,
        prompt_squares: np.ndarray,
        kv_longest: np.ndarray | float = ...,
    ) -> np.ndarray: ...

    def step_s(
        self,
        n_decode: float | np.ndarray,
        kv_tokens_read: float | np.ndarray,
        prompt_tokens: float | np.ndarray,
        prompt_squares: float | np.ndarray,
        kv_longest: float | np.ndarray = 0.0,
    ) -> float | np.ndarray:
        """Return the seconds of a step; scalars give a float, arrays broadcast.

        ``prompt_squares`` is the sum of :func:`chunk_squares` over the prompt chunks of the step:
        twice the attended pairs, so a whole prompt of L tokens counts L^2. ``kv_longest``
        is the most KV tokens that one decode row reads; only a law with a skew term asks for it.
        """
        decode = self.per_decode_s * n_decode + self.per_kv_token_s * kv_tokens_read
        if self.per_skewed_kv_token_s > 0.0:
            short = np.maximum(n_decode * kv_longest - kv_tokens_read, 0.0)
            skew = self.per_skewed_kv_token_s * short
            decode = decode + (skew if isinstance(skew, np.ndarray) else float(skew))
        prompt = self.per_prompt_token_s * prompt_tokens + self.per_prompt_square_s * prompt_squares
        if isinstance(decode, np.ndarray) or isinstance(prompt, np.ndarray):
            with_prompt = np.maximum(self.floor_s, self.base_s + prompt)
            return np.where(np.asarray(prompt_tokens) > 0, with_prompt, self.base_s) + decode
        if prompt_tokens > 0:
            return max(self.floor_s, self.base_s + prompt) + decode
        return self.base_s + decode

    def to_json(self) -> dict[str, float]:
        """Return the coefficients by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, float]) -> StepLaw:
        """Rebuild a law from :meth:`to_json`; an unknown or missing name is an error.

        Coefficients that are 0 by default may be left out.
        """
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        require(
            needed <= set(row) <= names,
            "step law needs exactly its own coefficients",
            got=sorted(row),
        )
        return cls(**{name: float(value) for name, value in row.items()})


def chunk_squares(start: int, n_tokens: int) -> int:
    """Return ``n*(2*start + n)``: twice the attended pairs of ``n`` tokens after ``start``.

    Chunks add up: the sum over any split of a prompt of L tokens is L^2.
    """
    return n_tokens * (2 * start + n_tokens)
