"""One request whose numbers go bad fails alone, and the command line says so."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import backend.live
from backend.commands import app
from backend.models import LoadedModel
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Result
from tests.backend.tiny import (
    CONTEXT,
    STEP_LAW,
    STOP,
    engine,
    sparse,
    submission,
    tampered,
    tokens_of,
)

VICTIM = 1
WANTED = [submission(i, 70 + i, 14, temperature=0.9) for i in range(4)]


def spoiled(loaded: LoadedModel, value: float, *, after: int) -> LoadedModel:
    """Return a model whose logits of the victim hold ``value`` once it has ``after`` tokens."""

    def change(step: Any, logits: Tensor) -> Tensor:
        for lane, row in enumerate(step.rows):  # every row samples: prompts fit one step
            if row.request_id == VICTIM and row.start + row.n_tokens >= 70 + VICTIM + after:
                logits[0, lane, 17] = value
        return logits

    return tampered(loaded, change)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("preset", ["full", sparse(0.9)])
def test_a_request_with_bad_logits_fails_alone(tiny, value, after, preset):
    clean = tokens_of(engine(tiny, preset), WANTED)
    results: list[Result] = []
    made = engine(spoiled(tiny, value, after=after), preset)
    made.on_step = lambda _, result: results.append(result)
    found = {g.request.request_id: g for g in made.run(WANTED)}
    assert found[VICTIM].reason == "nonfinite_logits"
    assert found[VICTIM].tokens == clean[VICTIM][:after]
    for request_id in set(clean) - {VICTIM}:
        assert found[request_id].tokens == clean[request_id]
        assert found[request_id].reason in ("stop", "length")
    for result in results:  # the log stays finite: JSON and the laws' lanes hold no NaN
        for lanes in (*result.signals, result.commands, result.h_applied, result.surprisal):
            assert all(map(math.isfinite, lanes.tolist()))


def test_masked_tokens_are_not_a_failure_and_are_never_drawn(tiny):
    def mask(_: Any, logits: Tensor) -> Tensor:
        logits[..., 100:] = -math.inf
        return logits

    made = engine(tampered(tiny, mask), "full")
    assert all(max(g.tokens) < 100 for g in made.run(WANTED))
    assert {g.reason for g in made.done.values()} == {"length"}


@pytest.mark.parametrize("preset", ["baseline", sparse(0.9)])
def test_a_failed_request_leaves_nothing_in_the_pages_it_held(tiny, preset):
    """A NaN embedding fills the victim's KV; who gets its pages next must not notice."""
    network = copy.deepcopy(tiny.model)
    network.model.embed_tokens.weight.data[STOP] = math.nan
    poisoned = replace(tiny, model=network)
    small = EngineLimits(max_seqs=2, token_budget=256, n_pages=16, max_context=200)
    victim = submission(50, 150, 20)
    bad = replace(victim, prompt=(*victim.prompt[:-1], STOP))
    made = engine(poisoned, preset, small)
    found = tokens_of(made, [bad, *WANTED])
    assert made.done[50].reason == "nonfinite_logits"
    assert torch.isnan(made.executor.cache.k).any()  # it did get in, and nobody wiped it
    clean = tokens_of(engine(tiny, preset, small), [victim, *WANTED])
    assert {i: found[i] for i in range(4)} == {i: clean[i] for i in range(4)}


def generate(monkeypatch: pytest.MonkeyPatch, loaded: LoadedModel, *more: str) -> Any:
    monkeypatch.setattr(backend.live, "load", lambda _, **__: loaded)
    monkeypatch.setattr(backend.live, "default_step_law", lambda: STEP_LAW)
    return CliRunner().invoke(app, ["generate", *more])


def test_generate_prints_a_row_per_prompt_and_metrics(monkeypatch, tiny):
    done = generate(monkeypatch, tiny, "one", "and two", "--max-tokens", "6", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["command"] == "generate"
    assert [row["request_id"] for row in document["rows"]] == [0, 1]
    assert all(0 < row["tokens"] <= 6 for row in document["rows"])
    again = generate(monkeypatch, tiny, "one", "and two", "--max-tokens", "6", "--json")
    texts = [row["text"] for row in document["rows"]]
    assert [row["text"] for row in json.loads(again.stdout)["rows"]] == texts


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_generate_exits_1_when_a_request_failed(monkeypatch, tiny, more):
    def spoil(step: Any, logits: Tensor) -> Tensor:
        logits[0, [row.request_id for row in step.rows].index(0)] = math.nan
        return logits

    done = generate(monkeypatch, tampered(tiny, spoil), "a prompt", "--max-tokens", "4", *more)
    assert done.exit_code == 1
    assert "error: request 0 failed: nonfinite_logits" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["x", "--preset", "nope"], "unknown preset 'nope'"),
        (["x", "--temperature", "-1"], "temperature=-1.0"),
        (["x", "--target-nats", "nan"], "target_nats=nan"),
        (["x", "--max-tokens", str(CONTEXT)], f"max_tokens={CONTEXT}"),
        ([""], "prompt_tokens=0"),
    ],
)
def test_generate_refuses_bad_input_in_one_line(monkeypatch, tiny, arguments, names):
    done = generate(monkeypatch, tiny, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert names in line


@pytest.mark.parametrize("temperature", ["1e-40", "1e40"])
def test_generate_survives_a_temperature_outside_float32(monkeypatch, tiny, temperature):
    more = ["x", "--preset", "baseline", "--max-tokens", "3", "--json"]
    done = generate(monkeypatch, tiny, *more, "--temperature", temperature)
    assert done.exit_code == 0, done.stderr
