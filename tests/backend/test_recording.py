"""Recorded traces: true numbers, whole files, and the same file after an interruption."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from backend.recorder import TraceRecorder, WhatIf
from backend.recording import RecordingPlan, record
from controllers import entropy
from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from kernels.page_select.naive import Pins
from tests.backend.tiny import (
    CONTEXT,
    ROOMY,
    STEP_LAW,
    STOP,
    engine,
    prompt_of,
    submission,
    tokens_of,
)
from traces.prompts import Prompt
from traces.schema import COVERAGES, PRUNED_NODES, SCORERS, X_NODES
from traces.store import Trace, TraceError, read_trace

PAGE = 16
OFTEN = WhatIf(every=2, min_context=64)
PROMPTS = tuple(
    Prompt(
        prompt_id=f"builtin/{i}",
        task_class="freeform",
        source="builtin",
        text="".join(chr(32 + c % 90) for c in prompt_of(90 + 25 * i, i)),
    )
    for i in range(3)
)
PLAN = RecordingPlan(prompts=PROMPTS, temperatures=(0.7, 1.0), max_tokens=12, seed=4)
PROVENANCE = {
    "commit": "test",
    "model": "tiny",
    "weights_sha256": "0" * 64,
    "t_cal": 1.0,
    "page_tokens": PAGE,
    "layers": 2,
    "kv_heads": 2,
    "page_unit_bytes": 2 * PAGE * 16 * 4,
    "pins": {"first": 1, "recent": 2, "min_pages": 4},
    "command": "entropic record",
    "versions": {"python": "3"},
}


class Interrupted(BaseException):
    """What a user's interrupt looks like to a recording."""


def run(loaded: LoadedModel, out: Path, *, max_seqs: int, stop_after: int | None = None) -> Path:
    def progress(done: int, total: int) -> None:
        assert total == len(PLAN.jobs())
        if done == stop_after:
            raise Interrupted

    record(
        loaded,
        PLAN,
        out,
        limits=EngineLimits(max_seqs=max_seqs, token_budget=256, n_pages=80, max_context=CONTEXT),
        step_law=STEP_LAW,
        what_if=OFTEN,
        provenance=PROVENANCE,
        progress=progress,
    )
    return out


@pytest.fixture(scope="module")
def trace(tiny, tmp_path_factory) -> Trace:
    return read_trace(run(tiny, tmp_path_factory.mktemp("trace") / "t.parquet", max_seqs=4))


@contextmanager
def stock(loaded: LoadedModel) -> Iterator[torch.nn.Module]:
    """Lend the model in float64 with transformers' own attention."""
    loaded.model.set_attn_implementation("eager")
    loaded.model.double()
    try:
        yield loaded.model
    finally:
        loaded.model.float()
        loaded.model.set_attn_implementation("entropic")


def whole_pass(
    loaded: LoadedModel, trace: Trace, request: int
) -> tuple[np.ndarray, tuple[Tensor, ...]]:
    """Return float64 logits that each token was drawn from, and attention of every query."""
    prompt = [*PLAN.jobs()[request][0].text.encode()]
    tokens = trace.of(request)["token"].tolist()
    with stock(loaded) as model, torch.no_grad():
        ids = torch.tensor([[*prompt, *tokens]])
        out = model(input_ids=ids, output_attentions=True)
    first = len(prompt) - 1
    return out.logits[0, first:-1].numpy(), out.attentions


def test_the_trace_holds_every_job_in_order_with_its_request(tiny, trace):
    jobs = PLAN.jobs()
    assert len(trace.requests) == len(jobs) == 6
    for request, (prompt, temperature, seed) in zip(trace.requests, jobs, strict=True):
        assert request.prompt_id == prompt.prompt_id
        assert request.prompt_tokens == len(prompt.text)
        assert request.temperature == pytest.approx(temperature)
        assert request.seed == seed
        tokens = trace.of(request.request)["token"]
        assert request.finish_reason == ("stop" if tokens[-1] == STOP else "length")
        assert len(tokens) == request.output_tokens <= PLAN.max_tokens


def test_recorded_entropies_are_those_of_float64_logits(tiny, trace):
    for request in range(len(trace.requests)):
        columns = trace.of(request)
        logits, _ = whole_pass(tiny, trace, request)
        h, v = entropy.entropy_varentropy(logits[:, None], X_NODES)
        np.testing.assert_allclose(columns["h"], h, atol=2e-3)
        np.testing.assert_allclose(columns["v"], v, atol=1e-2)
        h_cal, v_cal = entropy.entropy_varentropy(logits, 0.0)
        np.testing.assert_allclose(columns["h_cal"], h_cal, atol=2e-3)
        np.testing.assert_allclose(columns["v_cal"], v_cal, atol=1e-2)
        temperature = trace.requests[request].temperature
        np.testing.assert_allclose(np.exp(columns["x_applied"]), temperature, rtol=1e-6)
        h_applied, _ = entropy.entropy_varentropy(logits, math.log(temperature))
        np.testing.assert_allclose(columns["h_applied"], h_applied, atol=2e-3)
        chosen = np.take_along_axis(logits, columns["token"][:, None].astype(int), 1)[:, 0]
        surprisal = np.logaddexp.reduce(logits, axis=1) - chosen
        np.testing.assert_allclose(columns["surprisal"], surprisal, atol=2e-3)


def oracle_shares(weights: list[np.ndarray], coverage: float) -> tuple[float, float, float]:
    """Return mean kept share, largest kept share and mean dropped mass, page by page by hand.

    ``weights``: attention ``[heads, context]`` of one query, a list over layers, in KV-head groups.
    """
    pins, shares, dropped = Pins(), [], []
    for layer in weights:
        for head in layer.reshape(2, 2, -1).mean(1):
            mass = np.array([head[i : i + PAGE].sum() for i in range(0, len(head), PAGE)])
            n = len(mass)
            kept = {*range(pins.first), *range(n - pins.recent, n)}
            for page in np.argsort(-mass):
                enough = sum(mass[p] for p in kept) >= coverage and len(kept) >= pins.min_pages
                if enough:
                    break
                kept.add(int(page))
            shares.append(len(kept) / n)
            dropped.append(1.0 - sum(mass[p] for p in kept))
    return float(np.mean(shares)), max(shares), float(np.mean(dropped))


def test_oracle_page_shares_follow_from_stock_attention(tiny, trace):
    oracle = SCORERS.index("oracle")
    for request in (1, 5):
        columns = trace.of(request)
        _, attentions = whole_pass(tiny, trace, request)
        assert columns["kept_mean"][0].min() == 1.0  # the prompt's own step chose nothing
        for i in range(1, len(columns["token"])):
            context = int(columns["context"][i])
            weights = [a[0, :, context - 1, :context].numpy() for a in attentions]
            for c, coverage in enumerate(COVERAGES):
                expected = oracle_shares(weights, coverage)
                found = [
                    columns[name][i, oracle, c] for name in ("kept_mean", "kept_max", "dropped")
                ]
                np.testing.assert_allclose(found, expected, atol=2e-5)


def test_curves_are_monotone_in_coverage_and_the_oracle_drops_what_it_may(trace):
    columns = trace.columns
    decode = columns["position"] > 0
    for name in ("kept_mean", "kept_max"):
        assert np.all(np.diff(columns[name], axis=2) >= 0), name
    for name in ("dropped", "evictable"):
        assert np.all(np.diff(columns[name], axis=2) <= 1e-7), name
    oracle = columns["dropped"][decode][:, SCORERS.index("oracle")]
    assert np.all(oracle <= 1.0 - COVERAGES + 1e-5)
    assert columns["kept_mean"][decode].min() < 0.9


def test_what_ifs_are_taken_when_due_and_move_h_little_at_high_coverage(trace):
    columns = trace.columns
    due = (columns["position"] % 2 == 1) & (columns["context"] > OFTEN.min_context)
    assert np.array_equal(~np.isnan(columns["kl_pruned"][:, 0]), due)
    assert due.sum() > 10
    kl = columns["kl_pruned"][due]
    assert np.all(kl >= 0)
    assert kl[:, -1].mean() < kl[:, 0].mean()
    moved = np.abs(columns["h_pruned"][due] - columns["h"][due][:, None, list(PRUNED_NODES)])
    assert moved[:, -1].mean() < moved[:, 0].mean()


def test_an_interrupted_recording_leaves_no_trace_and_resumes_to_the_same_file(tiny, tmp_path):
    whole = run(tiny, tmp_path / "whole.parquet", max_seqs=1)
    out = tmp_path / "broken.parquet"
    for done in (2, 3):
        with pytest.raises(Interrupted):
            run(tiny, out, max_seqs=1, stop_after=done)
        assert not out.exists()
        with pytest.raises(TraceError):
            read_trace(out)
    run(tiny, out, max_seqs=1)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.parquet", "whole.parquet"]


def test_resuming_in_another_batch_gives_the_same_tokens_and_nearly_the_same_numbers(
    tiny, trace, tmp_path
):
    out = tmp_path / "broken.parquet"
    with pytest.raises(Interrupted):
        run(tiny, out, max_seqs=3, stop_after=2)
    resumed = read_trace(run(tiny, out, max_seqs=4)).columns
    for name in ("request", "position", "context", "token"):
        assert np.array_equal(resumed[name], trace.columns[name]), name
    for name in ("h", "h_cal", "surprisal", "h_applied"):
        np.testing.assert_allclose(resumed[name], trace.columns[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("what_if", [None, OFTEN])
def test_a_recorder_and_its_what_ifs_change_nothing_of_the_run(tiny, what_if):
    wanted = [submission(i, 60 + i, 24, temperature=0.9) for i in range(3)]
    plain, recorded = engine(tiny), engine(tiny, recorder=TraceRecorder(what_if))
    assert tokens_of(plain, wanted) == tokens_of(recorded, wanted)
    for name in ("h_cal", "h_applied", "surprisal", "command"):
        assert np.array_equal(plain.ledger.tokens[name], recorded.ledger.tokens[name]), name
    ours, theirs = plain.executor.cache, recorded.executor.cache
    assert torch.equal(ours.k, theirs.k)
    assert torch.equal(ours.v, theirs.v)
    for a, b in zip(ours.stats, theirs.stats, strict=True):
        assert all(map(torch.equal, a, b))


def test_a_one_token_chunk_that_samples_nothing_is_not_a_decode_row(tiny):
    """Its attention must not be taken for that of the token sampled later."""
    recorder = TraceRecorder()
    executor = LiveExecutor(tiny, get_preset("baseline"), ROOMY, recorder=recorder)
    executor.add(Request(request_id=0, prompt_tokens=100, max_tokens=2), prompt_of(100, 0))
    for start, n in ((0, 80), (80, 1), (81, 18), (99, 1)):
        row = Row(0, start, n, start + n == 100, 1.0, False)
        executor.execute(Plan(0, (row,)), {0: list(range(7))})
    columns = recorder.take(0, 0)
    assert columns["context"].tolist() == [100]
    pages = 7 * 4  # of two layers' two heads
    assert np.allclose(columns["kept_mean"] * pages, np.round(columns["kept_mean"] * pages))
    assert columns["kept_mean"].shape == (1, len(SCORERS), len(COVERAGES))


def test_a_prompt_that_cannot_fit_is_refused_before_anything_is_written(tiny, tmp_path):
    long = Prompt(prompt_id="builtin/9", task_class="long", source="builtin", text="x" * CONTEXT)
    plan = RecordingPlan(prompts=(*PROMPTS, long), temperatures=(1.0,), max_tokens=2, seed=0)
    with pytest.raises(ValueError, match=rf"builtin/9.*{CONTEXT}.*tokens={CONTEXT + 2}"):
        record(
            tiny,
            plan,
            tmp_path / "t.parquet",
            limits=ROOMY,
            step_law=STEP_LAW,
            what_if=OFTEN,
            provenance=PROVENANCE,
        )
    assert list(tmp_path.iterdir()) == []
