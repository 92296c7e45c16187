"""Free generation under a preset and under ``baseline``: what it says, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.llm import LLM
from backend.models import LoadedModel
from backend.params import Output, SamplingParams
from controllers.preset import Preset
from reports.evaluation.diversity import distinct_n, repeated_share
from reports.evaluation.example import Example


class Arm:
    """A preset's engine; replies to one example share its prompt's pages."""

    def __init__(
        self, loaded: LoadedModel, preset: Preset, *, context: int, max_tokens: int, seeds: int
    ) -> None:
        """Make an engine for ``seeds`` replies at once to prompts of ``context`` tokens."""
        page = 16
        pages = -(-context // page) * 2 + seeds * (-(-max_tokens // page) + 2)
        self.name = preset.name
        self._llm = LLM(loaded, preset, max_seqs=max(1, seeds), pool_tokens=page * pages)

    def replies(self, prompt: list[int], params: Sequence[SamplingParams]) -> list[Output]:
        """Reply once per entry of ``params``: first one, then the others, which find its pages."""
        first = self._llm.generate([prompt], params[:1])
        return first + self._llm.generate([prompt] * (len(params) - 1), params[1:])

    def close(self) -> None:
        """Stop the engine."""
        self._llm.close()


def free_row(example: Example, arm: str, seed: int, output: Output) -> dict[str, Any]:
    """Return the row of one reply."""
    tokens, measured = output.token_ids, output.metrics
    score = example.score(output.text)
    return {
        "kind": "free",
        "task": example.task,
        "document": example.document,
        "arm": arm,
        "seed": seed,
        "prompt_tokens": output.prompt_tokens,
        "text": output.text,
        "reason": output.finish_reason,
        "tokens": len(tokens),
        "score": None if score != score else score,
        "distinct_2": distinct_n(tokens, 2),
        "distinct_3": distinct_n(tokens, 3),
        "repeated_share": repeated_share(tokens),
        "temperature": measured.temperature,
        "coverage": measured.coverage,
        "entropy_nats": measured.entropy_nats,
        "nll_nats": measured.nll_nats,
    }
