"""What an engine can hold and do in one step: calibrated inputs, not constants."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from controllers.core import require


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Resolved limits of one replica; all are integers >= 1."""

    max_seqs: int  # residents at once
    token_budget: int  # tokens computed in one step, prompt and decode together
    n_pages: int  # KV pages in the pool
    max_context: int  # longest prompt + max_tokens
    page_tokens: int = 16  # token positions per page

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
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
        """Return the limits by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, int]) -> EngineLimits:
        """Rebuild limits from :meth:`to_json`; an unknown or missing name is an error."""
        names = {field.name for field in fields(cls)}
        require(set(row) == names, "limits need exactly their own names", got=sorted(row))
        return cls(**row)
