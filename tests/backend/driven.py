"""One greedy request driven by hand, so that a test chooses its page table and coverage."""

from __future__ import annotations

from torch import Tensor

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from backend.recorder import TraceRecorder
from backend.sparse import SparseAttention
from controllers.presets import get_preset
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from tests.backend.tiny import EVEN_IF_SHORT, ROOMY, prompt_of, tampered

PROMPT, STEPS, SIZE = 150, 20, ROOMY.page_tokens
TABLE = list(range(12))  # pages of PROMPT + STEPS tokens, in one extent
ALL_BUT_NOTHING = 1.0 - 1e-7  # below 1, so pages are chosen; so high that all of them are


class Run:
    """One greedy request driven by hand on a page table of our choosing; keeps its logits."""

    def __init__(
        self,
        loaded: LoadedModel,
        recorder: TraceRecorder | None = None,
        sparse: SparseAttention = EVEN_IF_SHORT,
    ) -> None:
        self.logits: list[Tensor] = []

        def keep(_: object, logits: Tensor) -> Tensor:
            self.logits.append(logits[0].clone())
            return logits

        self.executor = LiveExecutor(
            tampered(loaded, keep), get_preset("baseline"), ROOMY, recorder=recorder, sparse=sparse
        )
        self.units: list[tuple[int, int]] = []

    def decode(
        self, coverage: float = 1.0, table: list[int] = TABLE, *, request_id: int = 0
    ) -> list[int]:
        prompt = prompt_of(PROMPT, request_id)
        request = Request(
            request_id=request_id, prompt_tokens=PROMPT, max_tokens=STEPS, temperature=0.0
        )
        self.executor.add(request, prompt)
        self.step(Row(request_id, 0, PROMPT, True, 1.0, False), table)
        for step in range(STEPS - 1):
            self.step(Row(request_id, PROMPT + step, 1, True, coverage, False), table)
        return self.executor.generated(request_id)

    def step(self, row: Row, table: list[int]) -> None:
        result = self.executor.execute(Plan(0, (row,)), {row.request_id: table})
        self.units.append((result.page_units_read, result.page_units_dense))
