"""Drawn arrival files: lengths, ServeGen's fits, and what a user gets on bad input."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from traces.arrivals import Arrivals, ArrivalsError, read_arrivals
from traces.lengths import Lognormal, resampled
from traces.servegen import CLIENTS, PDFS, draw
from traces.synth_commands import app

HEADER = ("model", "client", "t_s", "rate_rps", "cv", "iat_family", "iat_arg1", "iat_arg2")


def tables(folder: Path, rows: list[tuple[object, ...]]) -> Path:
    """Write ServeGen tables with the given client windows."""
    with gzip.open(folder / CLIENTS, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(rows)
    pdf = {"10": 0.5, "100": 0.5}
    fields = {name: {"mean": 0.0, "pdf": pdf} for name in ("input_tokens", "output_tokens")}
    with gzip.open(folder / PDFS, "wt") as file:
        json.dump({"m": {"fields": fields}}, file)
    return folder


def test_lognormal_lengths_have_their_mean_and_spread():
    drawn = Lognormal(mean=500.0, cv=0.8).draw(200_000, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(500.0, rel=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(0.8, rel=0.02)
    assert set(Lognormal(mean=7.0).draw(5, np.random.default_rng(1)).tolist()) == {7}


def test_resampled_lengths_keep_prompt_and_output_together():
    source = Arrivals(
        times_s=np.arange(3.0),
        prompt_tokens=np.array([1, 2, 3]),
        output_tokens=np.array([10, 20, 30]),
        source="x",
    )
    prompts, outputs = resampled(source, 1000, np.random.default_rng(2))
    assert np.array_equal(outputs, 10 * prompts)
    assert len(set(prompts.tolist())) == 3


def test_servegen_draws_each_clients_rate_window_by_window(tmp_path):
    rows = [("m", 0, 0, 2.0, 2.0, "Gamma", 0.3, 9), ("m", 0, 600, 8.0, 1, "Weibull", 0.7, 9)]
    rows += [("m", 1, 600, 4.0, 1.0, "Gamma", 1.0, 9), ("other", 0, 0, 99.0, 1, "Gamma", 1, 1)]
    made = draw(
        tables(tmp_path, rows), "m", start_s=0.0, duration_s=1200.0, share=1.0,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    early = (made.times_s < 600.0).sum()
    assert early == pytest.approx(2.0 * 600, rel=0.15)
    assert len(made) - early == pytest.approx(12.0 * 600, rel=0.1)
    assert made.prompt_tokens is not None
    assert set(np.unique(made.prompt_tokens)) <= {10, 100, 101, 102, 103}


def test_a_share_thins_every_client_alike(tmp_path):
    rows = [("m", c, 0, 10.0 * (c + 1), 1.0, "Gamma", 1.0, 9) for c in range(3)]
    folder = tables(tmp_path, rows)
    counts = [
        len(draw(folder, "m", start_s=0, duration_s=600, share=s, rng=np.random.default_rng(4)))
        for s in (1.0, 0.1)
    ]
    assert counts[0] == pytest.approx(10 * counts[1], rel=0.1)


@pytest.mark.parametrize(
    ("model", "start_s", "named"), [("x", 0.0, "model must be one of"), ("m", 9e9, "no window")]
)
def test_servegen_names_what_is_missing(tmp_path, model: str, start_s: float, named: str):
    folder = tables(tmp_path, [("m", 0, 0, 2.0, 2.0, "Gamma", 0.3, 9)])
    with pytest.raises(ArrivalsError, match=named):
        draw(folder, model, start_s=start_s, duration_s=600.0, share=1.0,
             rng=np.random.default_rng(0))  # fmt: skip


def test_a_drawn_file_reads_back_and_the_same_seed_gives_the_same_bytes(tmp_path):
    files = [tmp_path / name for name in ("a.csv", "b.csv")]
    for file in files:
        options = ["--out", str(file), "--rate", "3", "--n", "400", "--process", "gamma"]
        done = CliRunner().invoke(app, ["synth", *options, "--cv", "2", "--shape", "spike"])
        assert done.exit_code == 0, done.output
    assert files[0].read_bytes() == files[1].read_bytes()
    made = read_arrivals(files[0])
    assert len(made) == 400
    assert made.prompt_tokens is not None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rate", "0"], "rate"),
        (["--rate", "1", "--cv", "3"], "cv"),
        (["--rate", "1", "--process", "pareto"], "family"),
        (["--rate", "1", "--shape", "square"], "shape"),
        (["--rate", "1", "--prompt-tokens", "0"], "mean"),
        (["--rate", "1", "--lengths", "absent.csv"], "absent.csv"),
    ],
)
def test_a_bad_option_is_named_and_leaves_no_file(tmp_path, options: list[str], named: str):
    out = tmp_path / "x.csv"
    done = CliRunner().invoke(app, ["synth", "--out", str(out), *options])
    assert done.exit_code == 2
    assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_published_fits_draw_their_published_rate(data_dir):
    made = draw(
        data_dir / "arrivals", "m-small", start_s=0.0, duration_s=1800.0, share=0.01,
        rng=np.random.default_rng(5),
    )  # fmt: skip
    with gzip.open(data_dir / "arrivals" / "servegen_rate_10min.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "m-small"]
    expected = 0.01 * 600 * sum(float(row["rate_rps"]) for row in rows if float(row["t_s"]) < 1800)
    assert len(made) == pytest.approx(expected, rel=0.1)
    assert made.prompt_tokens is not None
    assert made.prompt_tokens.mean() == pytest.approx(119.7, rel=0.05)
