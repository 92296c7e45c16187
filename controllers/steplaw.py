"""The step law: how many seconds one engine step takes, from what it computes and reads.

One affine law prices both worlds: the simulator's clock and the cost signal of the macro law.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, Protocol, overload

import numpy as np

from controllers.core import require

# Terms that most laws leave at 0, and a simulation then need not ask about in every step.
_SELDOM: Final = (
    "per_skewed_kv_token_s",
    "per_mixed_decode_s",
    "per_mixed_kv_token_s",
    "per_scored_unit_s",
    "pruned_step_s",
    "per_prompt_context_s",
    "per_knee_decode_s",
)


class Price(Protocol):
    """Seconds of one step, from numbers: arguments as :meth:`StepLaw.step_s`."""

    def __call__(
        self,
        n_decode: float,
        kv_tokens_read: float,
        prompt_tokens: float,
        prompt_squares: float,
        kv_longest: float,
        pages_scored: float,
        /,
    ) -> float:
        """Return the seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """Seconds of a step: one intercept, a decode part and a prefill part (DESIGN section 5).

    decode only: ``base + per_decode*B + per_kv_token*KV + per_knee_decode*max(0, B - knee)``, for
    up to some number of rows their arithmetic hides behind the reading of weights;
    with prompt tokens: ``max(floor, base - overlap + prompt_step + per_prompt_token*P +
    per_prompt_square*Q + per_prompt_context*Q/P) + per_decode*B + per_kv_token*KV +
    per_mixed_decode*B + per_mixed_kv_token*KV``, for kernels may run worse on a mixed batch.
    A large prompt's arithmetic hides the reading of weights, which is most of ``base``: ``overlap``
    is how much. Unequal contexts add ``per_skewed_kv_token*(B*longest - KV)`` to the decode part.
    A step that scores pages, to read some of them only, adds
    ``pruned_step + per_scored_unit*S``. Every coefficient is finite and
    >= 0, and ``overlap <= base <= floor`` where there is an overlap, so without the skew and the
    context term the law is monotone in all its arguments.
    """

    base_s: float  # fixed cost of any step
    per_decode_s: float  # per one-token decode row
    per_kv_token_s: float  # per KV token read by decode rows, kept pages only
    per_prompt_token_s: float  # per prompt (or recomputed) token
    per_prompt_square_s: float  # per unit of prompt_squares
    floor_s: float = 0.0  # shortest step that holds prompt tokens
    per_skewed_kv_token_s: float = 0.0  # per KV token that decode rows fall short of the longest
    prompt_overlap_s: float = 0.0  # of base_s, hidden behind the prompt's arithmetic
    per_mixed_decode_s: float = 0.0  # more per decode row in a step that holds prompt tokens
    per_mixed_kv_token_s: float = 0.0  # more per KV token read in such a step
    per_scored_unit_s: float = 0.0  # per page scored, summed over layers and KV heads
    pruned_step_s: float = 0.0  # once in a step that scores pages
    prompt_step_s: float = 0.0  # once in a step that holds prompt tokens
    per_prompt_context_s: float = 0.0  # per Q/P: tokens before a lone chunk, twice, and its own
    per_knee_decode_s: float = 0.0  # more per decode row beyond the knee, without prompt tokens
    decode_knee: float = 0.0  # decode rows

    def __post_init__(self) -> None:
        for field in fields(StepLaw):  # a kind of law may hold more than coefficients
            value = getattr(self, field.name)
            require(
                math.isfinite(value) and value >= 0.0,
                f"{field.name} must be finite and >= 0",
                **{field.name: value},
            )
        if self.prompt_overlap_s > 0.0:
            require(
                self.prompt_overlap_s <= self.base_s <= self.floor_s,
                "a law with an overlap needs prompt_overlap_s <= base_s <= floor_s",
                prompt_overlap_s=self.prompt_overlap_s,
                base_s=self.base_s,
                floor_s=self.floor_s,
            )

    @overload
    def step_s(
        self,
        n_decode: float,
        kv_tokens_read: float,
        prompt_tokens: float,
        prompt_squares: float,
        kv_longest: float = ...,
        pages_scored: float = ...,
    ) -> float: ...

    @overload
    def step_s(
        self,
        n_decode: np.ndarray,
        kv_tokens_read: np.ndarray,
        prompt_tokens: np.ndarray,
        prompt_squares: np.ndarray,
        kv_longest: np.ndarray | float = ...,
        pages_scored: np.ndarray | float = ...,
    ) -> np.ndarray: ...

    def step_s(
        self,
        n_decode: float | np.ndarray,
        kv_tokens_read: float | np.ndarray,
        prompt_tokens: float | np.ndarray,
        prompt_squares: float | np.ndarray,
        kv_longest: float | np.ndarray = 0.0,
        pages_scored: float | np.ndarray = 0.0,
    ) -> float | np.ndarray:
        """Return the seconds of a step; scalars give a float, arrays broadcast.

        ``prompt_squares`` is the sum of :func:`chunk_squares` over the prompt chunks of the step:
        twice the attended pairs, so a whole prompt of L tokens counts L^2. ``kv_longest``
        is the most KV tokens that one decode row reads; only a law with a skew term asks for it.
        ``pages_scored`` counts the pages that decode rows score, over layers and KV heads; only a
        law that ``prices_scoring`` asks for it.
        """
        decode = self.per_decode_s * n_decode + self.per_kv_token_s * kv_tokens_read
        if self.per_skewed_kv_token_s > 0.0:
            short = np.maximum(n_decode * kv_longest - kv_tokens_read, 0.0)
            skew = self.per_skewed_kv_token_s * short
            decode = decode + (skew if isinstance(skew, np.ndarray) else float(skew))
        if self.per_scored_unit_s > 0.0 or self.pruned_step_s > 0.0:
            decode = decode + self._scored_s(pages_scored)
        if not isinstance(prompt_tokens, np.ndarray) and prompt_tokens <= 0:
            alone = self.base_s + decode
            return alone + self._beyond_knee_s(n_decode) if self.per_knee_decode_s else alone
        prompt = self.per_prompt_token_s * prompt_tokens + self.per_prompt_square_s * prompt_squares
        if self.per_prompt_context_s > 0.0:
            prompt = prompt + self._context_s(prompt_tokens, prompt_squares)
        intercept = self.base_s - self.prompt_overlap_s + self.prompt_step_s
        if isinstance(decode, np.ndarray) or isinstance(prompt, np.ndarray):
            holds_prompt = np.asarray(prompt_tokens) > 0
            with_prompt = np.maximum(self.floor_s, intercept + prompt)
            alone = np.where(holds_prompt, with_prompt, self.base_s) + decode
            mixed = self._mixed_s(n_decode, kv_tokens_read)
            return alone + np.where(holds_prompt, mixed, self._beyond_knee_s(n_decode))
        mixed = self._mixed_s(n_decode, kv_tokens_read)
        return max(self.floor_s, intercept + prompt) + decode + mixed

    @property
    def prices_scoring(self) -> bool:
        """Whether a step costs more for the pages it scores."""
        return self.per_scored_unit_s > 0.0 or self.pruned_step_s > 0.0

    def _scored_s(self, pages_scored: Any) -> Any:
        return self.per_scored_unit_s * pages_scored + self.pruned_step_s * (pages_scored > 0)

    def _mixed_s(self, n_decode: Any, kv_tokens_read: Any) -> Any:
        if self.per_mixed_decode_s == self.per_mixed_kv_token_s == 0.0:
            return 0.0
        return self.per_mixed_decode_s * n_decode + self.per_mixed_kv_token_s * kv_tokens_read

    def _context_s(self, prompt_tokens: Any, prompt_squares: Any) -> Any:
        if isinstance(prompt_tokens, np.ndarray):
            prompt_tokens = np.maximum(prompt_tokens, 1)  # where there is none, nothing is squared
        return self.per_prompt_context_s * (prompt_squares / prompt_tokens)

    def _beyond_knee_s(self, n_decode: Any) -> Any:
        if self.per_knee_decode_s == 0.0:
            return 0.0
        beyond = np.maximum(n_decode - self.decode_knee, 0.0)
        return self.per_knee_decode_s * (
            beyond if isinstance(beyond, np.ndarray) else float(beyond)
        )

    def to_json(self) -> dict[str, float]:
        """Return the coefficients by name."""
        return {field.name: getattr(self, field.name) for field in fields(StepLaw)}

    def decode_row_s(self, batch: Any) -> Any:
        """Return the seconds of one row in a decode step of ``batch`` rows, its KV left out."""
        return self.base_s / batch + self.per_decode_s + self._beyond_knee_s(batch) / batch

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


def price_of(law: StepLaw) -> Price:
    """Return ``law.step_s`` for numbers, in which terms are left out that ``law`` leaves at 0.

    The seconds are the same to the last bit.
    """
    if type(law) is not StepLaw or any(getattr(law, name) > 0.0 for name in _SELDOM):
        return law.step_s
    base_s, floor_s = law.base_s, law.floor_s
    row_s, kv_token_s = law.per_decode_s, law.per_kv_token_s
    token_s, square_s = law.per_prompt_token_s, law.per_prompt_square_s
    intercept = base_s - law.prompt_overlap_s + law.prompt_step_s

    def price(
        rows: float, kv: float, tokens: float, squares: float, _longest: float, _scored: float, /
    ) -> float:
        decode = row_s * rows + kv_token_s * kv
        if tokens <= 0:
            return base_s + decode
        prompt_s = intercept + (token_s * tokens + square_s * squares)
        return (floor_s if floor_s > prompt_s else prompt_s) + decode

    return price


def chunk_squares(start: int, n_tokens: int) -> int:
    """Return ``n*(2*start + n)``: twice the attended pairs of ``n`` tokens after ``start``.

    Chunks add up: the sum over any split of a prompt of L tokens is L^2.
    """
    return n_tokens * (2 * start + n_tokens)
