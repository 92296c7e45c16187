from __future__ import annotations

from dataclasses import replace

import pytest

from controllers.presets import PRESETS
from reports import live
from reports.live import Reply


def test_ablate_json_has_a_row_per_preset_with_intervals(cli, inputs):
    found = cli.json("ablate", *inputs, "--seeds", 2, "--jobs", 1)
    assert {"command", "version", "seed", "config", "rows"} <= set(found)
    assert [row["preset"] for row in found["rows"]] == list(PRESETS)
    for row in found["rows"]:
        assert {"mean", "p50", "p95", "p99", "ci95"} == set(row["metrics"]["ttft_s"])
        assert {"mean", "ci95"} == set(row["metrics"]["cost_s"])
    assert found["rows"][0]["difference"] == {}
    sampling = found["rows"][1]["difference"]
    assert sampling["cost_s"] == {"mean": 0.0, "ci95": 0.0}
    assert found["config"]["seeds"] == [0, 1]


def test_ablate_prints_one_table_and_what_it_rests_on(cli, inputs):
    done = cli("ablate", *inputs, "--seeds", 1, "--jobs", 1)
    assert done.exit_code == 0
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()[:40] if "─" in line) <= 140
    for preset in PRESETS:
        assert preset in done.stdout
    for words in ("sha256", "made up for a test", "exogenous", "queue", "NOT the planned model"):
        assert words in done.stdout


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Reply:
    reply = Reply(
        task_class="code",
        prompt="Is 1 < 2?",
        text="yes & <b>no</b>",
        tokens=5,
        finish_reason="stop",
        entropy_nats=0.5,
        temperature=0.8,
        coverage=1.0,
    )
    monkeypatch.setattr(live, "generate_replies", lambda **_: [reply])
    return reply


def test_demo_shows_replies_table_and_page(cli, inputs, tmp_path, replies):
    out = tmp_path / "out"
    done = cli("demo", *inputs, "--quick", "--jobs", 1, "--seeds", 1, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert replies.text in done.stdout
    assert "Presets under common random numbers" in done.stdout
    assert done.stdout.rstrip().endswith(f"page: {out / 'index.html'}")
    assert "yes &amp; &lt;b&gt;no&lt;/b&gt;" in (out / "index.html").read_text()


def test_demo_without_the_live_backend_says_what_to_install(cli, inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "backend.live", None)
    done = cli("demo", *inputs, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "backend extra" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ablate_json_says_which_interval_is_which(cli, inputs):
    found = cli.json("ablate", *inputs, "--seeds", 1, "--jobs", 1)
    assert "bootstrap over prompts" in found["caveats"]["intervals"]
    assert "ideal kernel" in found["caveats"]["sparse_speed"]
    assert "0.8" in found["caveats"]["entropy_shift_not_applied_nats"]
    for row in found["rows"]:
        matched = row["matched_fixed_temperature"]
        assert set(matched["nll_difference_nats"]) == {"mean", "ci95"}
        for name in ("mean_temperature", "mean_entropy_nats"):
            assert row["metrics"][name]["mean"] > 0.0


def test_a_failed_live_request_is_told_and_fails_the_demo(
    cli, inputs, tmp_path, replies, monkeypatch
):
    empty = {"tokens": 0, "text": "", "entropy_nats": None, "temperature": None, "coverage": None}
    failed = replace(replies, **empty, finish_reason="error: no room")
    monkeypatch.setattr(live, "generate_replies", lambda **_: [replies, failed])
    out = tmp_path / "out"
    done = cli("demo", *inputs, "--quick", "--jobs", 1, "--seeds", 1, "--out", out)
    assert done.exit_code == 1
    assert "error: no room" in done.stderr
    assert replies.prompt in done.stderr
    assert "error: no room" in (out / "index.html").read_text()


@pytest.mark.parametrize("command", ["report", "demo"])
@pytest.mark.parametrize(
    ("option", "value"), [("--jobs", "-1"), ("--out", "taken"), ("--out", "taken/inside")]
)
def test_a_bad_option_is_refused_before_any_work(
    cli, inputs, tmp_path, monkeypatch, command, option, value
):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live, "generate_replies", lambda **_: pytest.fail("worked"))
    monkeypatch.setattr("reports.build.simulate_evidence", lambda *_, **__: pytest.fail("worked"))
    done = cli(command, *inputs, option, value)
    assert done.exit_code == 2, done.output
    assert value in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
