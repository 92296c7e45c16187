"""The benchmarks: rows that are kept, lines fitted, and work equal to the peer's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from backend.models import LoadedModel
from backend.sparse import SparseAttention
from reports.bench import decode, overhead, prefill, serve, serve_peers, sparse
from reports.bench.bench_commands import app
from reports.bench.clock import Copy
from reports.bench.figures import bench as draw
from reports.bench.memory import Sizes
from reports.bench.ours import OurSteps
from reports.bench.peers import StockSteps, require_peers, stock
from reports.bench.rows import (
    BenchError,
    Measure,
    Stamp,
    stamped,
)
from reports.bench.tables import crossings, tables
from reports.bench.text import token_rows
from reports.style import save
from tests.backend.tiny import prompt_of, tiny_model

STAMP = Stamp(device="a box", model="tiny", versions="torch=2", commit="abc", date="2026-01-01")
ROWS = [list(prompt_of(161, seed)) for seed in range(3)]
TINY_COPY = 1 << 16
ALWAYS = SparseAttention(min_pages=1)  # prune short rows too


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch) -> None:
    for one in (decode, sparse):
        monkeypatch.setattr(one, "SETTLE_S", 0.0)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return tiny_model()


@pytest.fixture(scope="module")
def network(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("stock")
    tiny.model.save_pretrained(folder)
    return stock(folder)


def silent(text: str) -> None:
    assert text


def test_a_step_reads_every_weight_once_and_each_tokens_keys_and_values(tiny):
    sizes = Sizes.of(tiny)
    held = sum(weight.numel() for weight in tiny.model.parameters())
    looked_up = tiny.model.get_input_embeddings().weight.numel()  # not tied: rows, not all of it
    assert sizes.weights == 4 * (held - looked_up)
    assert sizes.kv_per_token == 2 * 2 * 2 * 16 * 4


def test_a_peers_decode_step_gives_our_next_tokens(tiny, network):
    ours, theirs = OurSteps(tiny, ROWS), StockSteps(network, ROWS)
    found = []
    for context in (32, 96, 160):
        ours.fill(context)
        theirs.fill(context)
        for batch in (1, 3):
            found.append(ours.decode(batch).tokens)
            assert theirs.decode(batch)[1] == found[-1]
    assert len({tokens for tokens in found if len(tokens) == 3}) > 1


def test_a_peers_prefill_gives_our_next_token_whole_and_in_chunks(tiny, network):
    ours, theirs = OurSteps(tiny, ROWS), StockSteps(network, ROWS)
    for index, end in ((0, 50), (2, 161)):
        token = theirs.prefill(index, end)[1]
        assert ours.prefill(index, 0, end, end)[1] == token
        assert ours.prefill(index, 0, end, 48)[1] == token


def test_repeats_see_equal_state_and_a_shorter_step_disturbs_nothing(tiny):
    ours = OurSteps(tiny, ROWS, sparse=ALWAYS)
    ours.fill(160)
    before = [ours.decode(3, coverage) for coverage in (1.0, 0.6)]
    short = ours.decode(3, context=16)
    after = [ours.decode(3, coverage) for coverage in (1.0, 0.6)]
    assert short.pages_kept == 2.0
    for one, other in zip(before, after, strict=True):
        assert (one.tokens, one.pages_kept) == (other.tokens, other.pages_kept)


def test_the_order_of_pages_changes_no_token(tiny):
    extents, scattered = (
        OurSteps(tiny, ROWS, layout=name, sparse=ALWAYS) for name in ("extents", "scattered")
    )
    for steps in (extents, scattered):
        steps.fill(160)
    assert extents.decode(3).tokens == scattered.decode(3).tokens
    assert extents.decode(3, 0.6).pages_kept == scattered.decode(3, 0.6).pages_kept


def test_bytes_read_are_those_of_the_tokens_attended_to(tiny):
    ours, per_token = OurSteps(tiny, ROWS, sparse=ALWAYS), Sizes.of(tiny).kv_per_token
    ours.fill(160)
    dense, pruned = ours.decode(3), ours.decode(3, 0.6)
    assert dense.kv_bytes == 3 * 161 * per_token
    assert (dense.pages_kept, dense.kept_share) == (11.0, 1.0)
    pages = 3 * (pruned.pages_kept - 1) * 16 + 3 * 1  # the last page holds one token
    assert pruned.kv_bytes == pytest.approx((pages + 3 * 11) * per_token)  # moments: one a page
    assert pruned.kept_share < 1.0


# Benchmarks


def metrics_of(found: Sequence[Measure], variant: str, shape: str) -> dict[str, Measure]:
    return {m.metric: m for m in found if m.variant == variant and m.shape.startswith(shape)}


def test_decode_reports_time_bytes_and_equal_tokens_for_every_variant(tiny, network):
    peers = ("transformers", "sdpa")
    grid = decode.Grid(
        batches=(2,), contexts=(32, 64), coverages=(1.0, 0.8), peers=peers, repeats=3
    )
    found = list(decode.run(tiny, network, grid, Copy(TINY_COPY), silent, ROWS))
    assert {m.variant for m in found} == {"dense", "coverage=0.8", *peers}
    dense = metrics_of(found, "dense", "batch=2 context=64")
    assert dense["same_next_token_share"].values == (1.0,)
    moved = dense["kv_bytes"].median + dense["weights_bytes"].median
    rates = [moved / 1e9 / step for step in dense["step_s"].values]
    assert dense["gb_per_s"].values == pytest.approx(rates)
    assert "tokens_per_s" not in metrics_of(found, "sdpa", "batch=2 context=64")
    text = tables(stamped(found, STAMP))
    assert "copy GB/s" in text
    assert "x transformers" in text


def test_prefill_reports_chunks_beside_the_whole_prompt(tiny, network):
    found = list(prefill.run(tiny, network, (64,), (32, 512), 3, Copy(TINY_COPY), silent, ROWS))
    assert {m.variant for m in found} == {"whole", "chunk=32", "transformers"}
    same = [m for m in found if m.metric == "same_next_token_share"]
    assert [m.values for m in same] == [(1.0,), (1.0,)]


def test_sparse_fits_a_line_where_coverage_changes_the_pages_kept(tiny, monkeypatch):
    monkeypatch.setattr(sparse, "NARROWEST_PAGES", 1.0)
    sweep = sparse.Sweep(batch=2, contexts=(16, 160), coverages=(0.99, 0.8, 0.4), repeats=3)
    found = list(sparse.run(tiny, sweep, Copy(TINY_COPY), silent, ROWS))
    assert {m.shape for m in found if m.variant == "fit"} == {"batch=2 context=160 text=given"}
    fit = metrics_of(found, "fit", "batch=2 context=160")
    assert len(fit["slope_s_per_page"].values) == 3
    rows = stamped(found, STAMP)
    assert len(crossings(rows)) == 4
    assert "off below 512 tokens" in tables(rows)


def test_overhead_names_the_parts_of_control_and_their_sum(tiny):
    found = list(overhead.run(tiny, "full", 2, 32, 2, 3, silent))
    shares = {m.variant: m for m in found if m.metric == "share_of_step"}
    assert shares["step"].values == (1.0, 1.0, 1.0)
    parts = [m.values for name, m in shares.items() if name.startswith("control: ")]
    assert len(parts) >= 2
    assert shares["control"].values == pytest.approx(
        [sum(turn) for turn in zip(*parts, strict=True)]
    )
    assert "control: law" in tables(stamped(found, STAMP))


def test_serving_is_measured_by_when_tokens_came():
    served = serve.Served(times_s=((1.0, 2.0, 4.0), (2.0, 2.5, 5.0)), tokens=((1, 2, 3), (4, 5, 6)))
    found = {name: value for name, (_, value) in served.metrics().items()}
    assert found["total_s"] == 5.0
    assert found["tokens_per_s"] == pytest.approx(6 / 5)
    assert (found["ttft_mean_s"], found["ttft_max_s"]) == (1.5, 2.0)
    assert found["tpot_mean_s"] == pytest.approx((3.0 / 2 + 3.0 / 2) / 2)
    assert found["itl_p50_s"] == 1.5


def test_every_way_of_serving_gives_the_same_greedy_tokens(tiny, network):
    load = serve.Load(
        prompts=tuple(tuple(row[:n]) for row, n in zip(ROWS, (40, 25, 33), strict=True)),
        max_tokens=4,
        max_seqs=2,
    )
    peers = {"transformers": partial(serve_peers.padded, network)}
    found = list(serve.run(tiny, load, ("baseline", "full"), peers, 3, silent))
    baseline = metrics_of(found, "baseline", "requests=3 prompt=25-40")
    assert baseline["same_tokens_as_transformers"].values == (1.0,)
    assert baseline["pages_kept_share"].values == (1.0, 1.0, 1.0)
    assert {m.variant for m in found} == {"baseline", "full", "transformers"}
    assert all(len(m.values) == 3 for m in found if m.metric == "itl_p99_s")
    batched = serve_peers.continuous(network, load)
    assert batched.tokens == serve.serve_ours(tiny, "baseline", load).tokens
    assert network.config._attn_implementation == "sdpa"


def test_a_run_that_stopped_early_is_not_timed():
    load = serve.Load(prompts=((1, 2),), max_tokens=4, max_seqs=1)
    with pytest.raises(BenchError, match="serve x: request 0 must give 4 tokens; got 1"):
        serve.require_whole("x", load, [(7,)])


def test_text_rows_start_at_different_places(tiny):
    rows = token_rows(tiny, 3, 20, text="abcdefghijklmnopqrstuvwxyz" * 4)
    assert [len(row) for row in rows] == [20, 20, 20]
    assert len({tuple(row) for row in rows}) == 3
    with pytest.raises(BenchError, match="tokens of text; got 20"):
        token_rows(tiny, 3, 20, text="short")


# Figure and command line


def test_the_figure_draws_the_last_run_and_needs_one(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sparse, "NARROWEST_PAGES", 1.0)
    sweep = sparse.Sweep(batch=1, contexts=(160,), coverages=(0.99, 0.8, 0.4), repeats=3)
    grid = decode.Grid(batches=(1,), contexts=(32,), coverages=(1.0,), peers=(), repeats=3)
    copy = Copy(TINY_COPY)
    found = [
        *sparse.run(tiny, sweep, copy, silent, ROWS),
        *decode.run(tiny, None, grid, copy, silent, ROWS),
    ]
    figure = draw(stamped(found, STAMP))
    left, right = figure.axes
    assert "160 tokens" in [text.get_text() for text in left.texts]
    assert [label.get_text() for label in right.get_yticklabels()] == ["1 x 32"]
    assert save(figure, tmp_path / "bench.png").stat().st_size > 10_000
    with pytest.raises(BenchError, match="needs rows of sparse or decode"):
        draw([])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("decode", "--peers", "vllm"), "peers must be among transformers, sdpa; got 'vllm'"),
        (("decode", "--repeats", 2), "repeats must be >= 3; got 2"),
        (("decode", "--batch", "4,x"), "batch must be integers >= 1"),
        (("decode", "--coverage", "1.5"), "coverage must be numbers in (0, 1]"),
        (("decode", "--layout", "heap"), "layout must be one of extents, scattered; got 'heap'"),
        (("sparse", "--coverage", "1"), "coverage must be < 1 here; got 1"),
        (("serve", "--peers", "sdpa"), "peers must be among transformers, continuous"),
        (("serve", "--presets", "warp"), "unknown preset 'warp'"),
        (("overhead", "--preset", "warp"), "unknown preset 'warp'"),
        (("copy", "--repeats", 0), "repeats must be >= 3; got 0"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, command, message):
    out = tmp_path / "bench.csv"
    done = CliRunner().invoke(app, [*map(str, command), "--out", str(out)])
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_unknown_peers_are_named():
    with pytest.raises(BenchError, match="got 'flash'"):
        require_peers(("sdpa", "flash"))
