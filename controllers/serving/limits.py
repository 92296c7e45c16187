"""What an engine can hold and do in one step: calibrated inputs, not constants."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from controllers.core import require

OPTIONS = ("keeps_preempted", "plans_ahead")  # off unless named


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Resolved limits of one replica: integers >= 1, and options that are on or off."""

    max_seqs: int  # residents at once
    token_budget: int  # tokens computed in one step, prompt and decode together
    n_pages: int  # KV pages in the pool
    max_context: int  # longest prompt + max_tokens
    page_tokens: int = 16  # token positions per page
    keeps_preempted: bool = False  # one that comes back finds its KV that nobody has overwritten
    plans_ahead: bool = False  # arrivals miss the next step, which is planned already; simulated

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in OPTIONS:
                require(isinstance(value, bool), f"{field.name} must be true or false", got=value)
                continue
            require(
                isinstance(value, int) and value >= 1,
                f"{field.name} must be an integer >= 1",
                **{field.name: value},
            )
        require(
            self.token_budget >= self.max_seqs,
            "token_budget must be >= max_seqs, so that every resident can decode",
            token_budget=self.token_budget,
            max_seqs=self.max_seqs,
        )

    def pages_for(self, tokens: int) -> int:
        """Return the pages that ``tokens`` token positions occupy."""
        return -(-tokens // self.page_tokens)

    def to_json(self) -> dict[str, int]:
        """Return the limits by name; options only where they are on."""
        row = asdict(self)
        return {name: row[name] for name in row if name not in OPTIONS or row[name]}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> EngineLimits:
        """Rebuild limits from :meth:`to_json`; an unknown or missing name is an error."""
        names = {field.name for field in fields(cls)}
        require(
            {*row, *OPTIONS} == names,
            "limits need exactly their own names",
            got=sorted(row),
        )
        return cls(**row)
