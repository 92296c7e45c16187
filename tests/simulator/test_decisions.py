"""What the decision log says is checked against plans, lengths and limits, not against itself."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict

import pytest

from controllers.coverage import FixedCoverage
from controllers.presets import get_preset
from controllers.serving.decisions import DecisionLog, Reads, Why
from controllers.serving.loop import ServingLoop
from simulator.decisions import collected, decision_file, read_decisions
from simulator.decisions_story import explain
from simulator.description import Failures
from simulator.run import run_workload
from simulator.server import LOST
from simulator.workload import Workload
from tests.serving.worlds import STEP_LAW, FakeExecutor, World, limits, preset, request
from tests.simulator.clusters import EVEN, LIMITS, arrival, cluster, outage
from tests.simulator.onlooker import crowded, replayed


def test_every_rule_in_the_log_held_when_it_was_applied():
    seen: set[str] = set()
    for name in ("fcfs", "quantum", "by_size", "unreserved"):
        for seed in range(4):
            seen |= {rule for rule, times in replayed(name, seed)[1].items() if times}
    assert seen >= set(Why)  # the crowd makes each rule apply


def test_a_witness_changes_no_plan():
    for name in ("fcfs", "by_size"):
        told = crowded(name, 1, DecisionLog(lambda row: None))
        alone = crowded(name, 1, None)
        assert told[1] == alone[1]
        assert told[0].executor.streams == alone[0].executor.streams


def test_long_rankings_keep_the_leading_and_whoever_the_step_decided_about():
    full: list[dict] = []
    short: list[dict] = []
    crowded("by_size", 2, collected(full)(0))
    crowded("by_size", 2, collected(short, leading=1)(0))
    cut = 0
    for whole, brief in zip(full, short, strict=True):
        if "ranked" not in whole:
            continue
        assert [r for r in whole["ranked"] if r in brief["ranked"]] == brief["ranked"]
        kept = {r[1] for r in brief["ranked"]}
        about = {r[0] for r in brief["rows"] if r[1] == Why.ADMITTED}
        assert kept >= about | {p[0] for p in brief["preempted"]}
        assert brief["ranked_of"] == len(whole["ranked"])
        cut += len(whole["ranked"]) - len(brief["ranked"])
    assert cut > 0
    stories = [explain(rows, i) for rows in (full, short) for i in range(24)]
    assert any("ranked behind those the log keeps" in story for story in stories[24:])
    assert not any("ranked behind those the log keeps" in story for story in stories[:24])


def served_alone(using, **asked) -> dict[str, list[list]]:
    """Serve one request; return its decode rows by what made them read."""
    rows: list[dict] = []
    loop = ServingLoop(
        limits(n_pages=40, max_context=150), using, STEP_LAW, witness=DecisionLog(rows.append)
    )
    w = World(loop, FakeExecutor(seed=0, stop_share=0.0, law=using.temperature))
    w.submit(request(1, prompt=6, length=60, **asked))
    w.run()
    found: dict[str, list[list]] = defaultdict(list)
    for row in rows:
        for one in row.get("rows", ()):
            found[one[5]].append(one)
    return found


def test_a_row_says_why_it_reads_what_it_reads():
    using = preset("attention", coverage=FixedCoverage(coverage=0.9), probe_every=8)
    found = served_alone(preset("attention", **{**_as(using), "sparse_min_context": 20}))
    assert set(found) == {Reads.PROMPT, Reads.SHORT, Reads.PROBE, Reads.SPARSE}
    assert all(one[2] + 1 < 20 and one[4] == 1.0 for one in found[Reads.SHORT])
    assert all(one[2] + 1 >= 20 for one in found[Reads.SPARSE] + found[Reads.PROBE])
    assert all(one[4] == pytest.approx(0.9) for one in found[Reads.SPARSE])
    assert all((one[2] + 1 - 6 + 1) % 8 == 0 and one[4] == 1.0 for one in found[Reads.PROBE])
    assert set(served_alone(using, enabled=False)) == {Reads.PROMPT, Reads.OFF}
    assert set(served_alone(preset())) == {Reads.PROMPT, Reads.ASKED}
    floored = served_alone(using, min_coverage=0.95)
    assert all(one[4] == 0.95 for one in floored[Reads.FLOOR])
    assert Reads.SPARSE not in floored
    assert set(served_alone(using, min_coverage=1.0)) == {Reads.PROMPT, Reads.FLOOR}


def _as(using) -> dict[str, object]:
    return {"coverage": using.coverage, "probe_every": using.probe_every}


def test_a_story_tells_every_stretch_of_a_request():
    rows: list[dict] = []
    w, _ = crowded("by_size", 1, collected(rows)(0))
    requests = w.loop.ledger.requests
    preempted = int(requests["request_id"][requests["preemptions"].argmax()])
    row = w.loop.ledger.row_of[preempted]
    story = explain(rows, preempted)
    assert story.startswith(f"request {preempted} (")
    assert story.count("gave way: ") == requests["preemptions"][row] >= 1
    assert story.count("let in") == requests["preemptions"][row] + 1
    assert f"{requests['tokens'][row]} tokens" in story.splitlines()[-1]
    times = [float(line.split(" s")[0]) for line in story.splitlines()[1:]]
    assert times == sorted(times)
    with pytest.raises(ValueError, match="request_id must be in the decision log"):
        explain(rows, 999)


def test_a_log_on_disk_is_what_was_told(tmp_path):
    told: list[dict] = []
    crowded("quantum", 3, collected(told)(7))
    for name in ("log.jsonl", "log.jsonl.gz"):
        path = tmp_path / name
        with decision_file(path) as witnesses:
            crowded("quantum", 3, witnesses(7))
        assert list(read_decisions(path)) == json.loads(json.dumps(told))
    assert {row["replica"] for row in told} == {7}


def test_an_aborted_run_leaves_no_log(tmp_path):
    with pytest.raises(RuntimeError), decision_file(tmp_path / "log.jsonl") as witnesses:
        witnesses(0)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must end in"), decision_file(tmp_path / "log.txt"):
        pass
    (tmp_path / "other.jsonl").write_text('{"kind":"header"}\n')
    with pytest.raises(ValueError, match=r"other\.jsonl must be a decision log"):
        list(read_decisions(tmp_path / "other.jsonl"))


def test_sparse_rows_carry_the_share_the_recording_kept():
    rows: list[dict] = []
    using = preset("attention", coverage=FixedCoverage(coverage=0.9))
    witness = collected(rows, kept=lambda request_id, position: position / 100)(0)
    loop = ServingLoop(limits(n_pages=40, max_context=150), using, STEP_LAW, witness=witness)
    w = World(loop, FakeExecutor(seed=0, stop_share=0.0, law=get_preset("baseline").temperature))
    w.submit(request(1, prompt=6, length=20))
    w.run()
    sparse = [one for row in rows for one in row.get("rows", ()) if one[4] < 1.0]
    assert len(sparse) >= 10
    assert all(one[7] == (one[2] + 1 - 6) / 100 for one in sparse)
    assert "% of the pages read on average" in explain(rows, 1)


def test_a_crash_is_told_and_the_request_goes_on_elsewhere(model, residual, configure):
    rows: list[dict] = []
    plan = cluster(failures=Failures(outages=(outage(0, 3.5, 100.0),)))
    config = configure("baseline", limits=LIMITS, step_law=EVEN, cluster=plan)
    workload = Workload(arrivals=(arrival(0, 0, 9), arrival(1, 0, 9)))
    told = run_workload(model, residual, workload, config, witnesses=collected(rows))
    assert told.mode == "online"
    lost = [row for row in rows if row["kind"] == "left" and row["reason"] == LOST]
    assert [(row["replica"], row["request_id"], row["tokens"]) for row in lost] == [(0, 0, 3)]
    lines = explain(rows, 0).splitlines()
    assert [line.split(" on ")[1] for line in lines if "arrived" in line] == [
        "replica 0",
        "replica 1",
    ]
    assert "left: lost, 3 tokens" in "\n".join(lines)
    assert "left: stop, 9 tokens" in lines[-1]
    alone = run_workload(model, residual, workload, dataclasses.replace(config, mode="online"))
    assert alone.to_json() == told.to_json()
