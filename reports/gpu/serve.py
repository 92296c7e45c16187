"""Stage ``serve``: the serving loop itself on this device, its tokens, its laws and its prices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from backend.engine import Engine, Submission
from backend.models import LoadedModel, load
from backend.place import dtype_name
from backend.profile import ProfileOptions, run_profile
from backend.profile_store import PassStore, store_path
from backend.setup import default_limits, default_step_law
from backend.sparse import SparseAttention
from controllers.coverage import FixedCoverage
from controllers.preset import Preset
from controllers.presets import get_preset
from controllers.selection import Pins
from controllers.serving.request import Request
from controllers.serving.rows import LogRow
from controllers.serving.runlog import replay_commands, replay_plans
from reports.gpu.greedy import NEAR, margins, transformers_model
from reports.gpu.place import Place
from reports.gpu.record import Record
from traces.console import package_versions
from traces.profile import write_profile

PROMPTS, STEPS = (200, 37, 700, 64), 48  # tokens; the longest prompt takes more than one chunk
LEAST_PROFILE_S = 90.0  # with less left no profile is begun
LIBRARIES = ("torch", "transformers", "numpy", "entropic-time")


def serve(place: Place, record: Record) -> None:
    """Serve SmolLM2 in each type; needs its folder."""
    if place.model is None:
        record.add("skipped", part="serve", note="needs --model")
        return
    for dtype in (torch.float32, torch.bfloat16) if place.cuda else (torch.float32,):
        loaded = load(str(place.model), device=place.device, dtype=dtype)
        reference = transformers_model(place.model, dtype, place)
        served(place, record, loaded, reference)


def served(place: Place, record: Record, loaded: LoadedModel, reference: Any) -> None:
    """Run every part on a model; one that raises is a row that failed, and the others go on."""
    parts = (
        ("serve_greedy", lambda: _greedy(place, record, loaded, reference)),
        ("serve_coverage_one", lambda: _coverage_one(place, record, loaded)),
        ("serve_parity", lambda: _parity(place, record, loaded)),
        ("serve_profile", lambda: _profile(place, record, loaded)),
    )
    for name, part in parts:
        try:
            part()
        except Exception as error:  # recorded; the others still run
            record.failed(name, error, passed=False, dtype=dtype_name(loaded.dtype))


def _greedy(place: Place, record: Record, loaded: LoadedModel, reference: Any) -> None:
    """Ask transformers about each token of a batch that is chunked, mixed and decoded together."""
    made = _engine(loaded, get_preset("baseline"))
    asked = _asked(place, loaded, temperature=0.0)
    off = []
    for submission, found in zip(asked, made.run(asked), strict=True):
        given, drawn = (
            torch.tensor(ids, device=loaded.device) for ids in (submission.prompt, found.tokens)
        )
        off.append(margins(reference, given, drawn))
    margin = torch.cat(off)
    record.add(
        "serve_greedy",
        dtype=dtype_name(loaded.dtype),
        tokens=margin.numel(),
        equal=int((margin == 0).sum()),
        largest_margin=float(margin.max()),
        bound=NEAR[loaded.dtype],
        passed=bool((margin <= NEAR[loaded.dtype]).all()),
    )


def _coverage_one(place: Place, record: Record, loaded: LoadedModel) -> None:
    """Hold page selection that keeps everything against dense attention, through the engine."""
    dense, law = get_preset("baseline"), FixedCoverage(coverage=0.9)
    pruned = replace(dense, coverage=law, sparse_min_context=1, probe_every=0)
    asked, choosing = _asked(place, loaded), _engine(loaded, pruned)
    choosing.executor.pins = Pins(min_pages=choosing.limits.n_pages)  # so all pages are chosen
    one, two = ([g.tokens for g in made.run(asked)] for made in (_engine(loaded, dense), choosing))
    record.add(
        "serve_coverage_one",
        dtype=dtype_name(loaded.dtype),
        tokens=sum(map(len, one)),
        passed=one == two,
    )


def _parity(place: Place, record: Record, loaded: LoadedModel) -> None:
    """Replay the log of a run under ``full``: plans exactly, commands in numpy bit by bit."""
    log: list[LogRow] = []
    preset = replace(get_preset("full"), sparse_min_context=1)
    _engine(loaded, preset, log).run(_asked(place, loaded))
    plans, commands = replay_plans(log, preset), replay_commands(log, preset)
    record.add(
        "serve_parity",
        dtype=dtype_name(loaded.dtype),
        plans=plans.steps,
        plans_differing=plans.n_differing + plans.steps - plans.compared,
        commands=commands.commands,
        commands_differing=commands.n_differing,  # an ulp of the device's exp or log is one
        passed=plans.identical,
    )


def _profile(place: Place, record: Record, loaded: LoadedModel) -> None:
    """Time the grid of ``entropic profile run`` in the serving loop and write the profile."""
    if not place.dry and place.left_s < LEAST_PROFILE_S:
        record.add("skipped", part="serve_profile", note="too little time left")
        return
    out = record.path.with_name(f"profile-serving-{dtype_name(loaded.dtype)}.json")
    options = ProfileOptions(repeats=3, max_context=min(2048, loaded.max_context))
    if place.dry:
        options = replace(
            options, repeats=1, max_seqs=2, max_context=128, token_budget=32, coverages=()
        )
    store_path(out).unlink(missing_ok=True)
    opened: list[PassStore] = []

    def store(header: dict[str, Any]) -> PassStore:
        opened.append(PassStore(store_path(out), header))
        return opened[0]

    measured = run_profile(
        options,
        store,
        model=loaded,
        commit=place.commit,
        created=str(place.describe()["created"]),
        versions=package_versions(*LIBRARIES),
    )
    opened[0].remove()
    write_profile(out, measured.profile)
    record.add(
        "serve_profile",
        dtype=dtype_name(loaded.dtype),
        points=len(measured.points),
        fit_error=measured.profile.fit_error,
        step_law=measured.profile.step_law,
    )


def _engine(loaded: LoadedModel, preset: Preset, log: list[LogRow] | None = None) -> Engine:
    limits = default_limits(loaded, max_seqs=4, token_budget=256, pool_tokens=8192)
    return Engine(
        loaded,
        preset,
        limits,
        default_step_law(),
        sink=None if log is None else log.append,
        sparse=SparseAttention(min_pages=1),
        ignore_stop=True,
    )


def _asked(place: Place, loaded: LoadedModel, **fields: Any) -> list[Submission]:
    rng = np.random.default_rng(0)
    prompts, steps = ((20, 90), 6) if place.dry else (PROMPTS, STEPS)
    made = []
    for index, n in enumerate(prompts):
        request = Request(request_id=index, prompt_tokens=n, max_tokens=steps, seed=index, **fields)
        prompt = tuple(rng.integers(0, loaded.vocabulary - 1, n).tolist())
        made.append(Submission(request=request, prompt=prompt))
    return made
