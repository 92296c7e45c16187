"""A what-if pass must answer for the sparse step it stands for."""

from __future__ import annotations

import torch

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from backend.steps import forward, prepare
from backend.whatif import pruned_logits
from controllers.presets import get_preset
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from tests.backend.tiny import EVEN_IF_SHORT, ROOMY, prompt_of
from traces.schema import COVERAGES

TABLE = {0: list(range(16)), 9: list(range(16))}


def prepared(loaded: LoadedModel, start: int) -> LiveExecutor:
    """Return an executor about to compute token ``start``, in pages another request has used."""
    executor = LiveExecutor(loaded, get_preset("baseline"), ROOMY, sparse=EVEN_IF_SHORT)
    for request_id, length in ((9, 250), (0, start + 1)):
        request = Request(request_id=request_id, prompt_tokens=length, max_tokens=2)
        executor.add(request, prompt_of(length, request_id))
    executor.execute(Plan(0, (Row(9, 0, 250, True, 1.0, False),)), TABLE)
    executor.execute(Plan(1, (Row(0, 0, start, False, 1.0, False),)), TABLE)
    return executor


def test_a_what_if_gives_what_a_sparse_step_would_have_given(tiny):
    for start in (208, 209, 223):  # first, second and last token of a page
        row = Row(0, start, 1, True, 1.0, False)
        with torch.no_grad():
            asked = pruned_logits(prepared(tiny, start), [row], TABLE)[0]
            for lane, coverage in enumerate(COVERAGES):
                executor = prepared(tiny, start)
                sparse = row._replace(coverage=float(coverage))
                step = prepare([sparse], TABLE, executor.cache, executor.pins, sparse=EVEN_IF_SHORT)
                given = forward(tiny.model, executor.tokens_of([sparse]), [sparse], step)
                torch.testing.assert_close(asked[lane], given[0], rtol=0.0, atol=1e-5)
