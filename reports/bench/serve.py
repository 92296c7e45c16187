"""A closed batch of requests through the engine, and through the two ways transformers serves one.

Every request asks for the same number of tokens, stop tokens are passed over, and prompts have
different lengths. All sides are measured alike: by when each token came out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from backend.engine import Engine, Submission
from backend.models import LoadedModel
from backend.setup import PAGE_TOKENS, default_limits, default_step_law, page_unit_bytes
from controllers.presets import get_preset
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request
from reports.bench.clock import interleave
from reports.bench.decode import Note
from reports.bench.rows import BenchError, Measure, measure, shape_of
from reports.bench.text import text_name, token_rows

NAME = "serve"
GREEDY = "baseline"  # the preset whose requests decode greedily, as the peers' do
TEMPERATURE = 0.8  # of requests under any other preset
TOKEN_BUDGET = 512  # tokens a step, prompt and decode together; the peer's as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: ``prompts`` at once, ``max_tokens`` each, ``max_seqs`` in a step."""

    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int
    max_seqs: int
    text: str = "given"

    @property
    def longest(self) -> int:
        """Tokens of the longest request, its answer included."""
        return max(map(len, self.prompts)) + self.max_tokens

    @property
    def tokens(self) -> int:
        """Tokens generated in all."""
        return len(self.prompts) * self.max_tokens


@dataclass(frozen=True, slots=True)
class Served:
    """One run: when each token of each request came, in seconds since all were handed over."""

    times_s: tuple[tuple[float, ...], ...]
    tokens: tuple[tuple[int, ...], ...]
    read: dict[str, tuple[str, float]] = field(default_factory=dict)  # ours: pages and bytes

    def metrics(self) -> dict[str, tuple[str, float]]:
        """Return name -> (unit, value)."""
        first = np.array([times[0] for times in self.times_s])
        last = np.array([times[-1] for times in self.times_s])
        counts = np.array([len(times) for times in self.times_s])
        found = {
            "total_s": ("s", float(last.max())),
            "tokens_per_s": ("1/s", float(counts.sum() / last.max())),
            "ttft_mean_s": ("s", float(first.mean())),
            "ttft_max_s": ("s", float(first.max())),
        }
        if counts.min() > 1:
            gaps = np.concatenate([np.diff(times) for times in self.times_s])
            found["tpot_mean_s"] = ("s", float(((last - first) / (counts - 1)).mean()))
            found["itl_p50_s"] = ("s", float(np.percentile(gaps, 50)))
            found["itl_p99_s"] = ("s", float(np.percentile(gaps, 99)))
        return found | self.read


Server = Callable[[Load], Served]


def closed_load(
    loaded: LoadedModel, requests: int, context: int, max_tokens: int, max_seqs: int
) -> Load:
    """Return a load of real text: prompts from half of ``context`` up to it, evenly."""
    rows = token_rows(loaded, requests, context)
    lengths = np.linspace(max(1, context // 2), context, requests).astype(int)
    order = np.random.default_rng(0).permutation(requests)  # arrivals are not sorted by length
    prompts = tuple(tuple(row[:n]) for row, n in zip(rows, lengths[order], strict=True))
    return Load(prompts=prompts, max_tokens=max_tokens, max_seqs=max_seqs, text=text_name())


def run(
    loaded: LoadedModel,
    load: Load,
    presets: Sequence[str],
    peers: Mapping[str, Server],
    repeats: int,
    note: Note,
) -> Iterator[Measure]:
    """Serve the load by every preset and peer in turn; yield times and rates of each."""
    ours = {preset: partial(serve_ours, loaded, preset) for preset in presets}
    servers: dict[str, Server] = ours | dict(peers)
    runs: dict[str, list[Served]] = {name: [] for name in servers}

    def case(name: str) -> float:
        note(f"serve: {name}")
        runs[name].append(servers[name](load))
        return runs[name][-1].metrics()["total_s"][1]

    interleave({name: partial(case, name) for name in servers}, repeats)
    lengths = [len(prompt) for prompt in load.prompts]
    shape = shape_of(
        requests=len(lengths),
        prompt=f"{min(lengths)}-{max(lengths)}",
        max_tokens=load.max_tokens,
        max_seqs=load.max_seqs,
        text=load.text,
    )
    kept = {name: found[1:] for name, found in runs.items()}  # the first turn warmed up
    for name, found in kept.items():
        made = partial(measure, NAME, name, shape)
        columns = [one.metrics() for one in found]
        for metric, (unit, _) in columns[0].items():
            yield made(metric, unit, [column[metric][1] for column in columns])
        for peer in peers if name in ours else ():
            totals = [p.metrics()["total_s"][1] for p in kept[peer]]
            mine = [column["total_s"][1] for column in columns]
            pairs = zip(totals, mine, strict=True)
            yield made(f"speedup_over_{peer}", "1", [a / b for a, b in pairs])
            if name == GREEDY:  # the peers are
                same = same_tokens(found[-1], kept[peer][-1])
                yield made(f"same_tokens_as_{peer}", "1", [same])


def same_tokens(one: Served, other: Served) -> float:
    """Return the share of requests whose tokens are all the same."""
    pairs = list(zip(one.tokens, other.tokens, strict=True))
    return sum(a == b for a, b in pairs) / len(pairs)


def serve_ours(loaded: LoadedModel, name: str, load: Load) -> Served:
    """Serve a load on a fresh engine: no page is warm, no prefix is known."""
    chosen = get_preset(name)
    pool = sum(len(prompt) + load.max_tokens + PAGE_TOKENS for prompt in load.prompts)
    limits = default_limits(
        loaded,
        max_seqs=load.max_seqs,
        token_budget=max(TOKEN_BUDGET, load.max_seqs),
        pool_tokens=pool,
    )
    engine = Engine(loaded, chosen, limits, default_step_law(), ignore_stop=True)
    times: dict[int, list[float]] = {}
    count = {"read": 0, "dense": 0, "scored": 0, "probes": 0, "rows": 0}

    def on_step(plan: Plan, result: Result) -> None:
        now = time.perf_counter()
        for request_id in plan.sampled:
            times.setdefault(request_id, []).append(now)
        count["read"] += result.page_units_read
        count["dense"] += result.page_units_dense
        count["scored"] += result.pages_scored
        count["probes"] += sum(row.probe for row in plan.rows)
        count["rows"] += len(plan.sampled)

    engine.on_step = on_step
    submissions = [
        Submission(request=_request(index, prompt, load, name), prompt=prompt)
        for index, prompt in enumerate(load.prompts)
    ]
    started = time.perf_counter()
    done = engine.run(submissions)
    require_whole(name, load, [generation.tokens for generation in done])
    units = count["read"] + count["scored"] / limits.page_tokens
    read = {
        "kv_bytes": ("B", units * page_unit_bytes(loaded, limits.page_tokens)),
        "pages_kept_share": ("1", count["read"] / max(count["dense"], 1)),
        "probe_share": ("1", count["probes"] / max(count["rows"], 1)),
    }
    ordered = tuple(tuple(t - started for t in times[s.request.request_id]) for s in submissions)
    return Served(ordered, tuple(generation.tokens for generation in done), read)


def _request(index: int, prompt: tuple[int, ...], load: Load, preset: str) -> Request:
    return Request(
        request_id=index,
        prompt_tokens=len(prompt),
        max_tokens=load.max_tokens,
        temperature=0.0 if preset == GREEDY else TEMPERATURE,
        seed=index,
    )


def require_whole(name: str, load: Load, found: Sequence[Sequence[int]]) -> None:
    """Refuse to time a run that did less than was asked."""
    for index, tokens in enumerate(found):
        if len(tokens) != load.max_tokens:
            raise BenchError(
                f"serve {name}: request {index} must give {load.max_tokens} tokens; "
                f"got {len(tokens)}"
            )
