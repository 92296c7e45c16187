"""Live validation: what is asked, what is played, what is simulated, and how it is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from backend.executor import LiveExecutor
from backend.models import LoadedModel
from controllers.serving.messages import Plan, Result
from reports.figures.live_validation import curves, latencies, queues
from reports.parts import Evidence
from reports.validation import live_play
from reports.validation.commands import validate
from reports.validation.live_campaign import Campaign, measure
from reports.validation.live_document import document_of
from reports.validation.live_load import LiveError, Spec, specs
from reports.validation.live_section import live, live_growth, live_trajectories
from reports.validation.live_text import live_text
from tests.backend.tiny import tiny_model
from tests.validation.live_world import OPTIONS, campaign, profile
from traces.profiles import FOLDER

CLOSED = Spec(preset="baseline", load=0.0, repeat=0)


def evidence(results: dict[str, Any]) -> Evidence:
    """Return evidence of a page that shows committed results alone."""
    return Evidence(ablation=cast(Any, None), load=None, trace_info={}, results=results)


@pytest.fixture(scope="module")
def tiny() -> Iterator[LoadedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_model()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    made = campaign(tiny, tmp_path_factory.mktemp("live"))
    measure(made, lambda _: None)
    return made


@pytest.fixture(scope="module")
def document(done: Campaign) -> dict[str, Any]:
    return {"commit": "unknown", **document_of(done, rescale=False)}


def test_every_plan_and_command_of_a_live_run_is_recomputed_alike(document: dict[str, Any]):
    parity = document["parity"]
    assert parity["plans"] > 50
    assert parity["commands"] > 100
    assert parity["plans_differing"] == parity["commands_differing"] == 0


def test_a_batch_that_is_there_at_once_takes_the_simulated_steps(done: Campaign):
    measured, simulated = done.folder.read(CLOSED).seen, done.simulated(CLOSED)
    for name in ("n_decode", "prompt_tokens", "page_units_read"):
        np.testing.assert_array_equal(measured.steps[name], simulated.steps[name])


def test_every_request_gives_the_tokens_asked_for(done: Campaign):
    for spec in specs(OPTIONS):
        run = done.folder.read(spec)
        assert set(run.seen.requests["tokens"]) == {OPTIONS.max_tokens}
        assert (run.client_ttft_s > 0.0).all()


def test_what_a_client_sees_is_no_sooner_than_what_the_engine_did(done: Campaign):
    run = done.folder.read(CLOSED)
    assert (run.client_ttft_s > run.seen.latencies()["ttft_s"]).all()


def test_the_table_has_a_verdict_for_each_statistic_of_the_bar(document: dict[str, Any]):
    cells = [cell for cell in document["cells"] if cell["load"] == 0.8]
    assert [cell["preset"] for cell in cells] == ["baseline", "full"]
    for cell in cells:
        judged = {(r["metric"], r["stat"]) for r in cell["rows"] if r["verdict"] != "not judged"}
        metrics, stats = ("ttft_s", "tpot_s", "e2e_s"), ("mean", "p50", "p95")
        assert judged == {(metric, stat) for metric in metrics for stat in stats}


def test_a_document_is_json_text_figures_and_sections(document: dict[str, Any]):
    again = json.loads(json.dumps(document, allow_nan=False))
    text = live_text(again)
    assert "decision parity: 0 of" in text
    assert "baseline at 110%: the queue grows by" in text
    found = evidence({"live_validation": again})
    for section in (live, live_growth, live_trajectories):
        part = section(found)
        assert part is not None
        assert part.figure is not None
    for draw in (latencies, curves, queues):
        assert draw(again, footer="") is not None
    assert live(evidence({})) is None


def test_rescaling_multiplies_the_simulation_by_the_reference_drift(done: Campaign):
    found = document_of(done, rescale=True)
    assert found["rescaled_by"] == found["drift"]["total"]["median"]
    plain = document_of(done, rescale=False)
    closed = [
        {r["metric"]: r["simulated"] for r in each["cells"][0]["rows"]} for each in (plain, found)
    ]
    ratio = closed[0]["throughput_tokens_per_s"] / closed[1]["throughput_tokens_per_s"]
    assert ratio == pytest.approx(found["rescaled_by"], rel=1e-3)


def test_a_finished_campaign_is_not_measured_again(tiny: LoadedModel, done: Campaign):
    spec = specs(OPTIONS)[-1]
    kept = done.folder.read(spec).facts["created"]
    lines: list[str] = []
    measure(campaign(tiny, done.folder.path, resume=True), lines.append)
    assert lines == []
    assert done.folder.read(spec).facts["created"] == kept


def test_a_campaign_goes_on_with_the_runs_that_are_missing(tiny: LoadedModel, done: Campaign):
    last = specs(OPTIONS)[-1]
    path = done.folder.path / "runs" / f"{last.name}.npz"
    before = done.folder.read(last)
    path.unlink()
    lines: list[str] = []
    measure(campaign(tiny, done.folder.path, resume=True), lines.append)
    assert lines[0].startswith("1 of ")
    after = done.folder.read(last)
    arrived = [run.seen.requests["arrival_ns"] for run in (before, after)]
    np.testing.assert_allclose(np.diff(arrived[0]), np.diff(arrived[1]), atol=1)


def test_another_campaign_is_not_mixed_in(tiny: LoadedModel, done: Campaign):
    with pytest.raises(LiveError, match="give --resume, or another --out"):
        campaign(tiny, done.folder.path)
    other = replace(OPTIONS, repeats=3)
    with pytest.raises(LiveError, match="options: must be that of the campaign that goes on"):
        campaign(tiny, done.folder.path, other, resume=True)


def test_a_campaign_without_resolved_limits_is_named(tiny: LoadedModel, done: Campaign):
    place = done.folder.path / "campaign.json"
    stored = place.read_text()
    facts = json.loads(stored)
    del facts["limits"]
    place.write_text(json.dumps(facts))
    try:
        with pytest.raises(LiveError, match=r"campaign\.json: limits: is missing"):
            campaign(tiny, done.folder.path, resume=True)
    finally:
        place.write_text(stored)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": "another, 2 threads"}, "profile: device: must be this machine's"),
        ({"model": "another"}, "profile: model: must be the one served, 'tiny'; got 'another'"),
        ({"limits": {"max_seqs": 8}}, "profile: limits: limits need exactly their own names"),
    ],
)
def test_a_profile_of_another_machine_or_without_limits_is_refused(
    tiny: LoadedModel, tmp_path: Path, changed: dict[str, Any], message: str
):
    with pytest.raises(LiveError, match=message):
        campaign(tiny, tmp_path, profile=profile(**changed))
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_the_profile_of_another_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shipped = FOLDER / "llama-3.1-8b_h100-sxm_tp1.json"
    with pytest.raises(SystemExit) as left:
        validate(profile=shipped, out=tmp_path, arrivals=Path(__file__))
    assert left.value.code == 2
    assert "error: profile: device: must be this machine's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_needs_something_to_validate(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        validate()
    assert left.value.code == 2
    assert "golden: must name a folder of runs" in capsys.readouterr().err


def test_drifts_that_differ_by_kind_of_step_are_doubted(document: dict[str, Any]):
    even = {name: dict.fromkeys(("min", "median", "max"), 1.2) for name in document["drift"]}
    assert "make it again" not in live_text({**document, "drift": even})
    uneven = {**even, "decode": dict.fromkeys(("min", "median", "max"), 0.7)}
    assert "make it again" in live_text({**document, "drift": uneven})


def test_a_clock_that_jumps_during_a_run_is_named(done: Campaign, monkeypatch: pytest.MonkeyPatch):
    ahead = iter([0.0, 3.5])
    monkeypatch.setattr(live_play, "_clocks", lambda: next(ahead))
    asked, prompts = done.asked(CLOSED)[:1], done.prompts(CLOSED)[:1]
    with pytest.raises(LiveError, match=r"clock: .* moved apart by 3\.5 s"):
        live_play.play(done.machine, OPTIONS.preset("baseline"), asked, prompts)


def test_a_prompt_is_computed_before_a_run_and_is_part_of_no_record(
    done: Campaign, monkeypatch: pytest.MonkeyPatch
):
    computed: list[list[int]] = []
    own = LiveExecutor.execute

    def noted(self: LiveExecutor, plan: Plan, pages: dict[int, list[int]]) -> Result:
        computed.append([row.request_id for row in plan.rows])
        return own(self, plan, pages)

    monkeypatch.setattr(LiveExecutor, "execute", noted)
    asked, prompts = done.asked(CLOSED)[:2], done.prompts(CLOSED)[:2]
    played = live_play.play(done.machine, OPTIONS.preset("baseline"), asked, prompts)
    ids = {each.request.request_id for each in asked}
    warm = [step for step in computed if not ids.issuperset(step)]
    assert warm == computed[: len(warm)]
    assert len(warm) > 0
    assert len(computed) == len(warm) + len(played.ledger.steps["step"])
    assert played.plans.steps == len(played.ledger.steps["step"])


def test_a_preempting_pool_is_simulated_with_its_pages(tiny: LoadedModel, tmp_path: Path):
    made = campaign(tiny, tmp_path, replace(OPTIONS, max_tokens=48), pages=14)
    asked = made.asked(CLOSED)
    live = live_play.play(made.machine, OPTIONS.preset("baseline"), asked, made.prompts(CLOSED))
    simulated = made.simulated(CLOSED)
    measured = int(live.ledger.requests["preemptions"].sum())
    assert measured == int(simulated.requests["preemptions"].sum()) > 0
