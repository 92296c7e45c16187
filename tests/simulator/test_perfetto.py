"""The trace file obeys the trace-event format, and its numbers are the ledger's."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from controllers.serving.loop import ServingLoop
from simulator.decisions import collected
from simulator.perfetto import write_perfetto
from tests.serving.worlds import STEP_LAW, FakeExecutor, World, limits, preset, request, uniform

NUMBER = (int, float)


def crowd(seed: int = 1, n: int = 30, gap_ns: int = 0, **kept) -> tuple[Ledger, list[dict]]:
    """Serve a crowd that runs out of pages, and one straggler after an idle spell."""
    rows: list[dict] = []
    using = preset("full")
    witness = collected(rows)(0)
    loop = ServingLoop(limits(n_pages=14), using, STEP_LAW, witness=witness, ledger=Ledger(**kept))
    w = World(loop, FakeExecutor(seed=seed, stop_share=0.05, law=using.temperature))
    for i in range(n):
        size = 1 + int(20 * uniform(seed, i))
        w.submit(request(i, prompt=size, length=1 + int(14 * uniform(seed, 2, i))))
        w.step()
    w.loop.cancel(n - 1, w.now_ns)
    w.run()
    w.now_ns += gap_ns
    w.submit(request(n, length=6))
    for _ in range(3):
        w.step()  # and leave it unfinished
    return loop.ledger, rows


def written(tmp_path, *args, **options) -> dict:
    path = write_perfetto(tmp_path / "trace.json", *args, **options)
    assert [p.name for p in path.parent.iterdir()] == ["trace.json"]
    document = json.loads(path.read_text())
    check_format(document)
    return document


def check_format(document: dict) -> None:
    """Check what the trace-event format asks of every event of the kinds we write."""
    assert document["displayTimeUnit"] in ("ms", "ns")
    assert isinstance(document["otherData"], dict)
    open_slices: dict[tuple, list[str]] = defaultdict(list)
    named: set[int] = set()
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["ph"] in {"X", "b", "e", "C", "M"}
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["ts"], NUMBER)
        assert math.isfinite(event["ts"])
        assert event["ts"] >= 0
        assert isinstance(event.get("args", {}), dict)
        match event["ph"]:
            case "X":
                assert event["dur"] >= 0
                assert isinstance(event["cat"], str)
            case "b" | "e":
                assert isinstance(event["id"], str)
                stack = open_slices[event["cat"], event["id"]]
                if event["ph"] == "b":
                    stack.append(event["name"])
                else:  # the innermost open slice of the same category and id
                    assert stack.pop() == event["name"]
            case "C":
                assert event["args"]
                assert all(isinstance(value, NUMBER) for value in event["args"].values())
            case "M":
                key = {"process_sort_index": "sort_index"}.get(event["name"], "name")
                assert event["name"] in {"process_name", "process_sort_index", "thread_name"}
                assert list(event["args"]) == [key]
                named.add(event["pid"])
    assert not any(open_slices.values()), "a slice was begun and never ended"
    assert {event["pid"] for event in document["traceEvents"]} == named


def of(document: dict, ph: str, **wanted: object) -> list[dict]:
    return [
        event
        for event in document["traceEvents"]
        if event["ph"] == ph and all(event[key] == value for key, value in wanted.items())
    ]


def ns(us: float) -> int:
    return round(1000 * us)


def points(document: dict, name: str) -> list[tuple[int, float]]:
    return [(ns(e["ts"]), *e["args"].values()) for e in of(document, "C", name=name)]


def test_every_step_of_the_ledger_is_a_slice(tmp_path):
    ledger, _ = crowd()
    steps, slices = ledger.steps, of(written(tmp_path, ledger), "X")
    assert [ns(e["ts"]) for e in slices] == steps["now_ns"].tolist()
    assert [ns(e["dur"]) for e in slices] == steps["duration_ns"].tolist()
    for name in ("n_decode", "prompt_tokens", "page_units_read", "preempted", "pages_held", "step"):
        assert [e["args"][name] for e in slices] == steps[name].tolist()
    kinds = {(e["args"]["n_decode"] > 0, e["args"]["prompt_tokens"] > 0): e["name"] for e in slices}
    assert kinds == {(True, True): "mixed", (True, False): "decode", (False, True): "prefill"}


def test_every_request_is_an_async_slice_with_its_phases_inside(tmp_path):
    ledger, _ = crowd()
    document = written(tmp_path, ledger)
    requests = ledger.requests
    ends = {(e["id"], e["name"]): ns(e["ts"]) for e in of(document, "e")}
    begins = {(e["id"], e["name"]): ns(e["ts"]) for e in of(document, "b")}
    for row, request_id in enumerate(requests["request_id"].tolist()):
        key, whole = f"1:{request_id}", f"request {request_id}"
        assert begins[key, whole] == requests["arrival_ns"][row]
        assert begins[key, "waiting"] == requests["arrival_ns"][row]
        if requests["first_scheduled_ns"][row] >= 0:
            assert begins[key, "prefill"] == requests["first_scheduled_ns"][row]
        if requests["first_token_ns"][row] >= 0:
            assert begins[key, "decode"] == requests["first_token_ns"][row]
        if ledger.reasons[row] is not None:
            assert ends[key, whole] == requests["finish_ns"][row]
    told = {e["args"]["request_id"]: e["args"] for e in of(document, "b") if "reason" in e["args"]}
    assert len(told) == len(requests)
    assert {args["reason"] for args in told.values()} >= {"length", "cancelled", "unfinished"}
    assert [told[i]["preemptions"] for i in sorted(told)] == requests["preemptions"].tolist()


def test_a_decision_log_dates_preemptions(tmp_path):
    ledger, rows = crowd()
    document = written(tmp_path, ledger, decisions=rows)
    expected = sorted(
        (row["now_ns"], f"1:{gone[0]}")
        for row in rows
        if row["kind"] == "decision"
        for gone in row["preempted"]
    )
    found = [(ns(e["ts"]), e["id"]) for e in of(document, "b", name="preempted")]
    assert sorted(found) == expected
    assert len(found) == ledger.requests["preemptions"].sum() > 0
    assert of(document, "b", name="recompute")
    assert not of(written(tmp_path, ledger), "b", name="preempted")


def test_waiting_and_running_are_what_the_loop_had(tmp_path):
    ledger, rows = crowd()
    document = written(tmp_path, ledger, decisions=rows)
    queue, running = dict(points(document, "queue")), dict(points(document, "running"))
    moments = np.array(sorted(queue))
    inside: set[int] = set()
    checked = 0
    for row in rows:
        if row["kind"] == "left":
            inside.discard(row["request_id"])
        if row["kind"] != "decision":
            continue
        inside -= {gone[0] for gone in row["preempted"]}
        inside |= {one[0] for one in row["rows"]}
        at = int(moments[np.searchsorted(moments, row["now_ns"], "right") - 1])
        assert running[at] == len(inside)
        assert queue[at] == (row["queue"] or {"n": 0})["n"]
        checked += queue[at] > 0
    assert checked > 10


def test_counters_hold_what_steps_and_tokens_hold(tmp_path):
    ledger, _ = crowd(gap_ns=10**9)
    document = written(tmp_path, ledger)
    steps, tokens = ledger.steps, ledger.tokens
    held = points(document, "KV held")
    begun = dict(zip(steps["now_ns"].tolist(), steps["pages_held"].tolist(), strict=True))
    assert [value for when, value in held if when in begun] == list(begun.values())
    assert [value for when, value in held if when not in begun] == [0]  # idle spell
    kept = points(document, "KV read by decode")
    assert len(kept) == np.count_nonzero(steps["page_units_dense"])
    for name, column in (("mean entropy", "h_applied"), ("mean coverage", "coverage")):
        for when, value in points(document, name):
            of_step = tokens[column][tokens["now_ns"] == when]
            assert value == pytest.approx(of_step.mean(), rel=1e-5)
    hot = points(document, "mean temperature")
    command = tokens["command"][tokens["now_ns"] == hot[0][0]][0]
    assert hot[0][1] == pytest.approx(np.exp(command), rel=1e-5)
    assert len(hot) == len(np.unique(tokens["now_ns"]))


def test_bounds_merge_steps_sample_requests_and_keep_extremes(tmp_path):
    ledger, _ = crowd()
    whole = written(tmp_path, ledger)
    small = written(tmp_path, ledger, max_steps=7, max_requests=5, max_points=6)
    slices = of(small, "X")
    assert len(slices) <= 7
    for name in ("n_decode", "prompt_tokens", "page_units_dense", "preempted"):
        assert sum(e["args"][name] for e in slices) == ledger.steps[name].sum()
    assert sum(e["args"].get("steps", 1) for e in slices) == len(ledger.steps)
    assert sum(ns(e["args"].get("busy_us", e["dur"])) for e in slices) == int(
        ledger.steps["duration_ns"].sum()
    )
    for name in ("queue", "KV held", "mean entropy"):
        few, all_of = points(small, name), points(whole, name)
        assert len(few) <= 6
        assert set(few) <= set(all_of)
        assert max(v for _, v in few) == max(v for _, v in all_of)
        assert min(v for _, v in few) == min(v for _, v in all_of)
    shown = [e for e in of(small, "b") if "reason" in e["args"]]
    assert len(shown) == 5
    left_out = small["otherData"]
    assert left_out["requests_omitted"] == len(ledger.requests) - 5
    assert left_out["steps_merged"] == len(ledger.steps) - len(slices)
    n_points = len(of(whole, "C")) - len(of(small, "C"))
    assert left_out["points_omitted"] == n_points > 0


def test_each_replica_is_a_process(tmp_path):
    ledgers = [crowd(seed=s, n=4)[0] for s in (1, 2)]
    document = written(tmp_path, ledgers, names=["H100", "A100"], about={"preset": "full"})
    titles = {e["pid"]: e["args"]["name"] for e in of(document, "M", name="process_name")}
    assert titles == {1: "H100", 2: "A100"}
    for pid, ledger in enumerate(ledgers, start=1):
        assert len(of(document, "X", pid=pid)) == len(ledger.steps)
    assert document["otherData"]["preset"] == "full"


def test_equal_ledgers_give_equal_bytes(tmp_path):
    ledger, rows = crowd()
    first = write_perfetto(tmp_path / "a.json", ledger, decisions=rows)
    second = write_perfetto(tmp_path / "b.json", ledger, decisions=rows)
    assert first.read_bytes() == second.read_bytes()


def test_nanoseconds_survive_the_way_through_microseconds():
    from simulator.perfetto import _us

    for when in (1, 999, 10**9 + 1, 86_400 * 10**9 + 123_456_789):
        assert ns(json.loads(json.dumps(_us(when)))) == when


def test_a_ledger_without_tokens_has_no_entropy_lane_and_one_without_steps_is_refused(tmp_path):
    ledger, _ = crowd(n=4, record_tokens=False)
    names = {e["name"] for e in of(written(tmp_path, ledger), "C")}
    assert names == {"queue", "running", "KV held", "KV read by decode"}
    with pytest.raises(ValueError, match="needs ledgers with step rows"):
        write_perfetto(tmp_path / "none.json", Ledger(record_steps=False))
    with pytest.raises(ValueError, match=r"must end in \.json"):
        write_perfetto(tmp_path / "trace.html", ledger)
    check_format(json.loads(write_perfetto(tmp_path / "trace.json", Ledger()).read_text()))
