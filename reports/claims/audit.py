"""Judge claims one by one; a judge that raises is named, and nothing is half done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reports.claims.claim import Claim, Judgement
from reports.claims.context import Context


class JudgeFailed(RuntimeError):
    """A judge raised: the claim and the error, in one line."""

    def __init__(self, claim: Claim, error: Exception) -> None:
        text = " ".join(str(error).split())
        super().__init__(f"the judge of {claim.key} raised {type(error).__name__}: {text}")


@dataclass(frozen=True, slots=True)
class Row:
    """A claim and its judgement."""

    claim: Claim
    judgement: Judgement

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; a number that is not finite is null."""
        claim, found = self.claim, self.judgement
        return {
            "key": claim.key,
            "section": claim.section,
            "claim": claim.says,
            "ruling": found.ruling.value,
            "because": found.because,
            "corrected": found.corrected or None,
            "numbers": {
                k: float(v) if math.isfinite(v) else None for k, v in found.numbers.items()
            },
            "command": claim.command,
            "flaws": list(claim.flaws),
        }


def judge_all(
    claims: Sequence[Claim],
    context: Context,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Judge ``claims`` in order; raise ``JudgeFailed`` for the first judge that raises."""
    rows = []
    for claim in claims:
        begin = time.monotonic()
        try:
            rows.append(Row(claim, claim.judge(context)))
        except Exception as error:
            raise JudgeFailed(claim, error) from error
        took = time.monotonic() - begin
        say(f"{claim.key}: {rows[-1].judgement.ruling.value} ({took:.1f} s)")
        progress(len(rows), len(claims))
    return rows
