"""The simulator's benchmark: equal work in every mode, bars that can be missed, peers refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from reports.bench import simulator as bench
from reports.bench.bench_commands import app
from reports.bench.rows import BenchError, Measure, Stamp, read, stamped
from reports.bench.simulator_run import Case, Stopwatch, lengths, run
from reports.bench.simulator_vidur import Vidur
from simulator.cluster import Cluster

STAMP = Stamp(device="a box", model="none", versions="numpy=2", commit="abc", date="2026-01-01")


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arrivals") / "lengths.csv"
    rng = np.random.default_rng(3)
    rows = [f"{i},{rng.integers(20, 900)},{rng.integers(2, 60)}" for i in range(40)]
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENTROPIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_every_mode_does_the_same_work(arrivals: Path) -> None:
    before = Cluster.run
    case = Case(arrivals=str(arrivals), requests=60, rate_per_s=30.0, pages=300)
    found = {mode: run(replace(case, mode=mode)) for mode in ("macro", "steps", "calls", "online")}
    assert Cluster.run is before
    first = found["macro"]
    assert first.completed == 60
    for mode, one in found.items():
        assert one.mode == mode
        assert (one.steps, one.output_tokens, one.simulated_s, one.preemptions) == (
            first.steps,
            first.output_tokens,
            first.simulated_s,
            first.preemptions,
        )
        assert one.serve_s > 0.0
        assert (one.scan_s > 0.0) == (mode in ("macro", "steps"))
        assert one.scan_s < one.serve_s
        assert one.asked_share > 0.0


def test_lengths_are_a_shuffle_that_starts_again_and_times_scale_with_the_rate(
    arrivals: Path,
) -> None:
    case = Case(arrivals=str(arrivals), requests=100)
    drawn = lengths(case)
    assert drawn.prompt_tokens is not None
    assert np.array_equal(drawn.prompt_tokens[:40], drawn.prompt_tokens[40:80])
    assert len(np.unique(drawn.prompt_tokens[:40])) > 30
    faster = lengths(replace(case, rate_per_s=8.0))
    assert np.allclose(drawn.times_s, 2.0 * faster.times_s)
    assert not np.array_equal(drawn.times_s, lengths(replace(case, seed=1)).times_s)


def test_a_stopwatch_counts_what_it_watches_and_lets_go() -> None:
    class Watched:
        def work(self, n: int) -> int:
            return sum(range(n))

    before, watch = Watched.work, Stopwatch()
    with watch.on(Watched, "work"):
        assert [Watched().work(n) for n in (10, 100_000)] == [45, 4_999_950_000]
    Watched().work(10)
    assert Watched.work is before
    assert watch.calls == 2
    assert watch.wall_s > 0.0


def test_cases_run_in_processes_of_their_own_and_are_kept(arrivals: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.csv"
    arguments = ["simulator", "--rows", "macro", "--arrivals", str(arrivals), "--quick"]
    done = CliRunner().invoke(app, [*arguments, "--repeats", "3", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["metric"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["requests_per_wall_s"]["repeats"] == 3
    assert rows["process_s"]["median"] > rows["serve_s"]["median"] > rows["scan_s"]["median"]
    assert 20.0 < rows["peak_rss_mb"]["median"] < 400.0
    assert {row.name for row in read(out)} == {"simulator"}
    assert "MISSED" not in bench.text(read(out))  # a quick run is held against no bar


def some(variant: str, requests: int, **metrics: float) -> list[Measure]:
    shape = f"requests={requests}"
    return [
        Measure(name="simulator", variant=variant, shape=shape, metric=m, unit="1", values=(v,))
        for m, v in metrics.items()
    ]


def test_a_bar_is_reached_or_missed_in_words() -> None:
    good = some("macro", 2000, requests_per_wall_s=5000.0, process_s=0.9, peak_rss_mb=131.0)
    slow = some("busy", 2000, requests_per_wall_s=3499.0)
    memory = some("memory", 0, mb_per_1000_requests=0.41)
    text = bench.text(stamped([*good, *slow, *memory], STAMP))
    for line in (
        "macro: requests_per_wall_s >= 5000: reached",
        "macro: process_s < 1: reached",
        "macro: peak_rss_mb < 130: MISSED",
        "busy: requests_per_wall_s >= 3500: MISSED",
        "further requests <= 0.4 MB: MISSED",
    ):
        assert line in text
    short = bench.text(stamped(some("busy", 500, requests_per_wall_s=1.0), STAMP))
    assert "MISSED" not in short


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "macro,fast"], "rows must be of macro"),
        (["--repeats", "2"], "repeats must be >= 3"),
        (["--arrivals", "nowhere.csv"], "no file nowhere.csv"),
        (["--vidur", "."], "no vidur/main.py"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_clock_runs(
    arguments: list[str], message: str, arrivals: Path, tmp_path: Path
) -> None:
    given = arguments if "--arrivals" in arguments else [*arguments, "--arrivals", str(arrivals)]
    out = tmp_path / "bench.csv"
    done = CliRunner().invoke(app, ["simulator", *given, "--out", str(out)])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not out.exists()


MAIN = """
import sys
from vidur.simulator import Simulator
def main():
    if "--fail" in sys.argv or "4096" not in sys.argv:
        raise SystemExit("bad arguments")
    requests = int(sys.argv[sys.argv.index(
        "--synthetic_request_generator_config_num_requests") + 1])
    Simulator(requests).run()
"""
SIMULATOR = """
import time
class Simulator:
    def __init__(self, requests):
        if requests > 50:
            raise ValueError(f"too many requests: {requests}")
    def run(self):
        time.sleep(0.05)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in (
        ("vidur/__init__.py", ""),
        ("vidur/main.py", MAIN),
        ("vidur/simulator.py", SIMULATOR),
        ("data/processed_traces/splitwise_conv.csv", ""),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_vidurs_event_loop_is_timed_apart_from_its_process(checkout: Path) -> None:
    found = Vidur.at(checkout).run(20)
    assert found["requests"] == 20
    assert 0.05 <= found["serve_s"] < found["process_s"]
    assert found["peak_rss_mb"] > 1.0


def test_a_vidur_that_fails_is_one_line(checkout: Path) -> None:
    with pytest.raises(BenchError, match="too many requests: 60"):
        Vidur.at(checkout).run(60)
    with pytest.raises(BenchError, match="must be an interpreter"):
        Vidur.at(checkout, checkout / "python")
    (checkout / "vidur" / "main.py").unlink()
    with pytest.raises(BenchError, match=r"has no vidur/main\.py"):
        Vidur.at(checkout, Path(sys.executable))
