"""The log: exact round trips, parity by replay, and refusals that name the fault."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.peers import PEERS
from controllers.presets import PRESETS, Preset, shadowed
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Result
from controllers.serving.rows import (
    LogRow,
    plan_from_row,
    plan_row,
    request_from_row,
    result_from_row,
    result_row,
    submit_row,
)
from controllers.serving.runlog import read_log, replay_commands, replay_plans, write_log
from controllers.serving.scheduler import Scheduler
from tests.serving.worlds import (
    MS,
    STEP_LAW,
    FakeExecutor,
    World,
    limits,
    preset,
    request,
    uniform,
    world,
)


def recorded(using: Preset, n_requests: int = 14) -> list[LogRow]:
    """The log of a busy little run with cancels and a kill switch."""
    rows: list[LogRow] = []
    w = world(using, sink=rows.append, n_pages=10, stop_share=0.05)
    w.executor.fail_share = 0.01
    for i in range(n_requests):
        prompt, length = 1 + int(20 * uniform(i, 1)), 1 + int(15 * uniform(i, 2))
        asked = {"client": "ab"[i % 2], "priority": i % 3, "predicted_tokens": 1 + i % 4 * 4}
        w.submit(request(i, prompt, length, temperature=0.0 if i % 5 == 4 else 0.9, **asked))
        w.step()
        if i == 6:
            w.loop.cancel(5, w.now_ns)
            w.disable(6)
        w.now_ns += 7 * MS
    w.run()
    return [*rows, {"kind": "end", "now_ns": w.now_ns, "rows": len(rows)}]


@pytest.mark.parametrize("name", [*PRESETS, *PEERS])
def test_a_replayed_run_makes_the_same_plans_and_commands(name: str) -> None:
    using = preset(name)
    rows = json.loads(json.dumps(recorded(using)))
    plans, commands = replay_plans(rows, using), replay_commands(rows, using)
    assert plans.identical
    assert plans.compared == plans.steps > 40
    assert commands.identical
    assert commands.commands > 80


class LastFirst(Scheduler):
    """Serves the last to arrive first, whatever the law says."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._score = lambda sequences, now_ns: [float(s.arrival_ns) for s in sequences]


def test_a_run_of_another_scheduler_replays_under_that_scheduler_and_no_other() -> None:
    using = preset("full")
    rows: list[LogRow] = []
    server = ServingLoop(
        limits(n_pages=10), using, STEP_LAW, sink=rows.append, scheduler_type=LastFirst
    )
    w = World(server, FakeExecutor(law=using.temperature))
    for i in range(8):
        w.submit(request(i, 4 + 3 * i, 6))
        w.step()
    w.run()
    rows.append({"kind": "end", "now_ns": w.now_ns, "rows": len(rows)})
    assert replay_plans(rows, using, scheduler_type=LastFirst).identical
    assert not replay_plans(rows, using).identical


def test_an_altered_coverage_is_found_and_the_replay_goes_on() -> None:
    rows = recorded(preset("attention"))
    plan = next(r for r in rows if r["kind"] == "plan" and any(x[4] < 1.0 for x in r["rows"]))
    place = next(i for i, x in enumerate(plan["rows"]) if x[4] < 1.0)
    plan["rows"][place][4] += 2e-8
    parity = replay_plans(rows, preset("attention"))
    assert parity.n_differing == 1
    assert parity.differing[0].field == f"rows[{place}].coverage"
    assert parity.differing[0].step == plan["step"]
    assert parity.compared == parity.steps


def test_an_altered_client_counter_is_found() -> None:
    rows = recorded(preset("vtc"))
    plan = next(r for r in rows if "service" in r)
    plan["service"]["a"] += 1.0
    parity = replay_plans(rows, preset("vtc"))
    assert (parity.n_differing, parity.differing[0].field) == (1, "service")


def test_an_oracles_lengths_are_logged_and_nobody_elses() -> None:
    rows = recorded(preset("srpt_oracle"))
    told = [r["oracle_tokens"] for r in rows if r["kind"] == "submit"]
    assert len(set(told)) > 3
    assert all("oracle_tokens" not in r for r in recorded(preset("sjf")) if r["kind"] == "submit")
    for row in rows:
        if row["kind"] == "submit":
            row["oracle_tokens"] = 1000 - 60 * row["oracle_tokens"]
    assert not replay_plans(rows, preset("srpt_oracle")).identical


def test_a_log_from_before_clients_and_predictions_still_loads() -> None:
    row = submit_row(request(3), 7)
    for name in ("priority", "predicted_tokens", "client"):
        del row["request"][name]
    assert request_from_row(row) == request(3)


def test_an_altered_arrival_is_found() -> None:
    rows = recorded(preset())
    arrival = next(r for r in rows if r["kind"] == "submit" and r["request"]["request_id"] == 3)
    arrival["request"]["prompt_tokens"] += 4
    parity = replay_plans(rows, preset())
    assert not parity.identical
    assert parity.compared < parity.steps


def test_one_altered_bit_of_a_command_is_found() -> None:
    rows = recorded(preset("sampling"))
    result = [r for r in rows if r["kind"] == "result" and r["commands"]][20]
    command = np.float32(result["commands"][0])
    result["commands"][0] = float(np.nextafter(command, np.float32(9.0)))
    parity = replay_commands(rows, preset("sampling"))
    assert parity.n_differing == 1
    assert parity.differing[0].step == result["step"]
    assert parity.differing[0].logged != parity.differing[0].recomputed


def test_an_altered_signal_changes_the_commands_after_it() -> None:
    rows = recorded(preset("sampling"))
    result = [r for r in rows if r["kind"] == "result" and r["signals"]["h_in"]][3]
    result["signals"]["h_in"][0] += 1.0
    assert not replay_commands(rows, preset("sampling")).identical


def test_shadow_commands_are_replayed_too() -> None:
    using = shadowed(preset("sampling"))
    rows = recorded(using)
    law, states = using.temperature, {}
    n_shadow = 0
    for at, row in enumerate(rows):
        if row["kind"] != "result":
            continue
        plan = next(r for r in reversed(rows[:at]) if r["kind"] == "plan")
        result, shadow = result_from_row(row), []
        for lane, request_id in enumerate(plan_from_row(plan).sampled):
            signal = type(result.signals)(*(c[lane : lane + 1] for c in result.signals))
            states[request_id], _ = law.update(states.get(request_id, law.init(signal)), signal)
            shadow.append(float(law.shadow_command(states[request_id])[0]))
        row["shadow"] = shadow
        n_shadow += len(shadow)
    parity = replay_commands(rows, using)
    assert parity.identical
    assert parity.commands == 2 * n_shadow
    last = next(r for r in reversed(rows) if r["kind"] == "result" and r["shadow"])
    last["shadow"][0] += 0.5
    assert replay_commands(rows, using).differing[0].field.startswith("shadow of request")


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (preset("sampling"), "temperature"),
        (preset("baseline", quantum_tokens=5), "quantum_tokens"),
        (preset("baseline", priority=preset("scheduling").priority), "priority"),
    ],
)
def test_a_preset_that_did_not_make_the_log_is_refused_by_name(other: Preset, field: str) -> None:
    rows = recorded(preset("baseline"), n_requests=2)
    for replay in (replay_plans, replay_commands):
        with pytest.raises(ValueError, match=f"the preset's {field} must be the log's"):
            replay(rows, other)


def test_rows_rebuild_what_they_were_made_from() -> None:
    r = request(3, temperature=0.7, one_sided=True, task_class="chat")
    assert request_from_row(json.loads(json.dumps(submit_row(r, 5)))) == r
    rows = recorded(preset("full"))
    for row in rows:
        wire = json.loads(json.dumps(row))
        if row["kind"] == "plan":
            assert plan_row(plan_from_row(wire), row["now_ns"], row.get("service")) == row
        if row["kind"] == "result":
            assert result_row(result_from_row(wire), row["now_ns"]) == row


def test_float32_lanes_survive_the_log_bit_for_bit() -> None:
    row = next(r for r in recorded(preset()) if r["kind"] == "result" and r["commands"])
    odd = [float(np.float32(v)) for v in (0.1, -0.0, 1e-45, 3.4e38, float("nan"))]
    row = copy.deepcopy({**row, "commands": odd})
    commands = result_from_row(json.loads(json.dumps(row))).commands
    assert commands.dtype == np.float32
    assert commands.tobytes() == np.array(odd, dtype=np.float32).tobytes()


def test_lanes_of_another_type_are_not_logged() -> None:
    row = next(r for r in recorded(preset()) if r["kind"] == "result" and r["commands"])
    result = result_from_row(row)
    wide = {name: getattr(result, name) for name in Result.__dataclass_fields__}
    wide["commands"] = result.commands.astype(np.float64)
    with pytest.raises(TypeError, match="float32 lanes; got float64"):
        result_row(Result(**wide), 0)


def test_a_log_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl.gz"
    rows = recorded(preset())
    with write_log(path) as sink:
        for row in rows[:-1]:
            sink(row)
        assert not path.exists()
    read = read_log(path)
    assert read[:-1] == rows[:-1]
    assert read[-1] == {"kind": "end", "now_ns": rows[-2]["now_ns"], "rows": len(rows) - 1}
    assert replay_plans(read, preset()).identical


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = recorded(preset(), n_requests=2)
    for name in ("a", "b"):
        with write_log(tmp_path / name) as sink:
            for row in rows:
                sink(row)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), write_log(tmp_path / "run.jsonl.gz") as sink:
        sink({"kind": "header", "now_ns": 0})
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def bad_log(path: Path, rows: list[LogRow]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as text:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_bad_logs_are_refused_with_file_and_field(tmp_path: Path) -> None:
    header, *rest = recorded(preset(), n_requests=2)
    cases = {
        "schema": [{**header, "schema": "entropic-trace"}, *rest],
        "version": [{**header, "version": 99}, *rest],
        "kind": rest,
        "truncated: no matching 'end' row": [header, *rest[:-1]],
        "truncated: no matching 'end'": [header, *rest[1:]],
    }
    for words, rows in cases.items():
        path = bad_log(tmp_path / "bad.gz", rows)
        with pytest.raises(ValueError, match=words) as caught:
            read_log(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    whole = bad_log(tmp_path / "whole.gz", recorded(preset()))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.gz: truncated after \d+ rows"):
        read_log(cut)


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"not json\n", mtime=0)])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="odd: row 1 is not a log row"):
        read_log(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match="empty: truncated"):
        read_log(tmp_path / "empty")
