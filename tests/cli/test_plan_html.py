from __future__ import annotations

import json

import numpy as np

from tests.reports.html_tables import tables


def test_the_page_of_a_plan_shows_the_answers_of_its_document(cli, inputs, tmp_path):
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.exponential(1.0, 20))
    rows = [f"{t:.3f},{rng.integers(10, 60)},{rng.integers(2, 12)}" for t in times]
    arrivals, out, page = (tmp_path / name for name in ("hour.csv", "plan.json", "plan.html"))
    head = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
    arrivals.write_text(head + "\n".join(rows) + "\n")
    words = ["--slo", "ttft_p99<3s", "--seeds", 2, "--jobs", 1, "--presets", "full"]
    done = cli("plan", *inputs, "--arrivals", arrivals, *words, "--out", out, "--html", page)
    assert done.exit_code == 0, done.stderr
    document = json.loads(out.read_text())
    cells = [[cell.split("|")[0] for cell in row] for row in tables(page.read_text())[0][1:]]
    answer = {row[0]: row for row in cells}
    assert list(answer) == ["full"]
    for row in document["rows"]:
        assert answer[row["preset"]][1] == str(row["replicas"])
        assert float(answer[row["preset"]][6]) == float(f"{row['knee']['rate_per_s']:.3g}")
    for line in document["notes"]:
        assert line.replace("'", "&#x27;").replace("<", "&lt;") in page.read_text()
