from __future__ import annotations

import csv
import json

import pytest


@pytest.fixture
def asked(inputs, tmp_path) -> list[object]:
    path = tmp_path / "hour.csv"
    rows = "\n".join(f"{0.7 * i:.1f},{20 + i % 7},{3 + i % 5}" for i in range(30))
    path.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    return ["sweep", *inputs, "--arrivals", path, "--jobs", 1, "--rates", "1,3"]


def test_a_sweep_covers_the_grid_in_order(cli, asked):
    found = cli.json(*asked, "--presets", "full,baseline", "--replicas", "1,2")
    grid = [(row["preset"], row["replicas"], row["rate_per_s"]) for row in found["rows"]]
    assert grid == [(p, n, r) for p in ("full", "baseline") for n in (1, 2) for r in (1.0, 3.0)]
    ttft = [row["figures"]["ttft_s.mean"]["recorded"] for row in found["rows"]]
    assert ttft[1] > ttft[0]  # more load, longer waits
    assert ttft[3] < ttft[1]  # more servers, shorter ones
    assert "nat/token" in cli(*asked).stdout


def test_a_grid_on_disk_has_a_row_per_cell_and_intervals(cli, asked, tmp_path):
    table, tree = tmp_path / "grid.csv", tmp_path / "grid.json"
    for path in (table, tree):
        assert cli(*asked, "--seeds", 2, "--out", path).exit_code == 0
    comment, *lines = table.read_text().splitlines()
    rows = list(csv.DictReader(lines))
    document = json.loads(tree.read_text())
    assert json.loads(comment.removeprefix("# ")) == document["provenance"]
    assert document["provenance"]["schema"] == "entropic-sweep"
    cells = document["rows"]
    assert len(rows) == len(cells) == 4
    for row, cell in zip(rows, cells, strict=True):
        figure = cell["figures"]["ttft_s.p99"]
        assert float(row["ttft_s.p99"]) == figure["recorded"]
        low, high = (float(row[f"ttft_s.p99.{edge}"]) for edge in ("low", "high"))
        assert (low, high) == (figure["other_hours"]["low"], figure["other_hours"]["high"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--rates", "1,x"), ("rates", "'x'")),
        (("--rates", "0"), ("rates", "0")),
        (("--replicas", "1.5"), ("replicas", "1.5")),
        (("--replicas", "0"), ("replicas", "0")),
        (("--presets", "fastest"), ("'fastest'",)),
        (("--seeds", "1"), ("seeds", "1")),
        (("--out", "grid.xlsx"), ("grid.xlsx",)),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli, asked, changes, words):
    done = cli(*asked, *changes)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
