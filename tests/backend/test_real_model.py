"""SmolLM2-135M under pressure against transformers' own generation, token for token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from backend.engine import Engine, Submission
from backend.executor import LiveExecutor
from backend.models import LoadedModel, fetch_default
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from tests.backend.tiny import STEP_LAW, tampered
from traces.prompts import BUILTIN

PROMPTS = 20
CLOSE_CALL = 1e-3  # float64 gap of the two best logits below which float32 may choose either


@cache
def stock() -> Any:
    """Return the same weights as transformers alone would run them: nothing packed or swapped."""
    return AutoModelForCausalLM.from_pretrained(fetch_default(), dtype=torch.float32).eval()


def prompts_of(loaded: LoadedModel) -> list[list[int]]:
    texts = [BUILTIN[i % len(BUILTIN)].text for i in range(PROMPTS)]
    more = ("", " Be brief.", " Explain each step.")
    return [loaded.encode_chat(t + more[i // len(BUILTIN)]) for i, t in enumerate(texts)]


def stock_tokens(
    loaded: LoadedModel, prompts: Sequence[list[int]], max_tokens: int
) -> list[list[int]]:
    """Generate greedily in one left-padded batch; cut after the first stop token."""
    longest, pad = max(map(len, prompts)), min(loaded.stop_ids)
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        out = stock().generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max_tokens,
            pad_token_id=pad,
            use_cache=True,
        )
    return [until_stop(row, loaded.stop_ids) for row in out[:, longest:].tolist()]


def until_stop(tokens: list[int], stops: frozenset[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[:end]


def best_gap(prefix: list[int]) -> float:
    """Return the gap of the two best logits after ``prefix``, in float64."""
    with torch.no_grad():
        exact = copy.deepcopy(stock()).double()
        top = exact(input_ids=torch.tensor([prefix])).logits[0, -1].topk(2).values
    return float(top[0] - top[1])


def serve(
    loaded: LoadedModel, prompts: Sequence[list[int]], max_tokens: int
) -> tuple[list[list[int]], dict[str, int]]:
    """Serve all prompts greedily where slots, pages and chunks bind; count what happened."""
    limits = EngineLimits(max_seqs=6, token_budget=48, n_pages=22, max_context=1024)
    engine = Engine(loaded, get_preset("full"), limits, STEP_LAW)
    seen = {"chunks": 0, "mixed": 0}

    def on_step(plan: Plan, _: object) -> None:
        decodes = sum(row.samples and row.n_tokens == 1 for row in plan.rows)
        seen["chunks"] += sum(not row.samples for row in plan.rows)
        seen["mixed"] += 0 < decodes < len(plan.rows)

    engine.on_step = on_step
    made = [
        Submission(
            request=Request(
                request_id=i, prompt_tokens=len(p), max_tokens=max_tokens, temperature=0.0
            ),
            prompt=tuple(p),
            at_s=0.05 * i,
        )
        for i, p in enumerate(prompts)
    ]
    tokens = [list(generation.tokens) for generation in engine.run(made)]
    seen["preemptions"] = int(engine.ledger.requests["preemptions"].sum())
    return tokens, seen


@pytest.mark.parametrize("max_tokens", [pytest.param(24), pytest.param(64, marks=pytest.mark.slow)])
def test_greedy_output_is_that_of_transformers_whatever_the_pressure(smollm2, max_tokens):
    prompts = prompts_of(smollm2)
    expected = stock_tokens(smollm2, prompts, max_tokens)
    found, seen = serve(smollm2, prompts, max_tokens)
    assert all(count > 0 for count in seen.values()), seen
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours == theirs:
            continue
        pairs = zip([*ours, -1], [*theirs, -1], strict=False)
        first = next(i for i, (a, b) in enumerate(pairs) if a != b)
        gap = best_gap([*prompts[index], *theirs[:first]])
        print(f"prompt {index}: differs from token {first} on; float64 gap {gap:.1e}")
        assert gap < CLOSE_CALL, f"prompt {index}, token {first}: {ours[first:]}, {theirs[first:]}"


def test_logits_of_prefill_and_decode_are_those_of_transformers(smollm2):
    prompt, steps = prompts_of(smollm2)[0], 6
    kept: list[Tensor] = []

    def keep(_: object, logits: Tensor) -> Tensor:
        kept.append(logits[0].clone())
        return logits

    limits = EngineLimits(max_seqs=1, token_budget=256, n_pages=32, max_context=512)
    executor = LiveExecutor(tampered(smollm2, keep), get_preset("baseline"), limits)
    request = Request(request_id=0, prompt_tokens=len(prompt), max_tokens=steps, temperature=0.0)
    executor.add(request, prompt)
    spans = [(0, len(prompt)), *((len(prompt) + i, 1) for i in range(steps - 1))]
    for start, n in spans:
        row = Row(0, start, n, True, 1.0, False)
        executor.execute(Plan(0, (row,)), {0: list(range(32))})
    whole = torch.tensor([[*prompt, *executor.generated(0)]])
    with torch.no_grad():
        expected = stock()(input_ids=whole).logits[0, len(prompt) - 1 : -1]
    torch.testing.assert_close(torch.cat(kept), expected, rtol=1e-5, atol=1e-4)
