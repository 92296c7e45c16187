"""What only a GPU can show: real shapes in 16 bits, no host sync, and graphs that replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from controllers.selection import Pins
from kernels.fused_common import FRESH, ReusedWorkspace, Workspace
from kernels.kv_store import fused as kv_store
from kernels.page_select import fused as page_select
from kernels.page_stats import Moments
from kernels.paged_decode import fused as paged_decode
from kernels.row_stats import fused as row_stats

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
HEADS, GROUP, SIZE = 8, 4, 16
ROUNDING = {FP16: 2e-3, BF16: 1.6e-2, FP32: 2e-5}


class Step:
    """One decode step of one layer, all its buffers fixed, so that a graph can be captured."""

    def __init__(
        self, rows: int, n: int, dim: int, dtype: torch.dtype, place: str = "cuda"
    ) -> None:
        self.rows, self.n, self.dim, self.place = rows, n, dim, place
        self.generator = torch.Generator(place).manual_seed(rows)
        pool = rows * n + 1
        shape = (HEADS, pool, SIZE, dim)
        self.k_pages, self.v_pages = (self.normal(shape).to(dtype) for _ in range(2))
        keys = self.k_pages.float()
        self.stats = Moments(keys.mean(2), keys.var(2, correction=0))
        self.nats = self.normal((pool, SIZE)).abs()
        order = torch.randperm(pool, generator=self.generator, device=place)
        self.table = order[: rows * n].view(rows, n).int()
        self.k, self.v = (torch.empty(HEADS, rows, dim, dtype=dtype, device=place) for _ in "kv")
        self.q = torch.empty(rows, HEADS, GROUP, dim, dtype=dtype, device=place)
        self.n_pages, self.tails = (
            torch.empty(rows, dtype=torch.int32, device=place) for _ in range(2)
        )
        self.slots = torch.empty(rows, dtype=torch.int64, device=place)
        self.coverage = torch.empty(rows, device=place)
        self.draw()

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.place)

    def draw(self) -> None:
        """Refill the inputs in place: other queries, lengths and coverages."""
        for part in (self.q, self.k, self.v):
            part.copy_(self.normal(tuple(part.shape)))
        for part, high in ((self.n_pages, self.n), (self.tails, SIZE)):
            part.copy_(1 + (self.normal((self.rows,)).abs() * high / 3).int().clamp(max=high - 1))
        last = self.table.gather(1, (self.n_pages.long() - 1)[:, None])[:, 0].long()
        self.slots.copy_(last * SIZE + self.tails - 1)
        self.coverage.copy_(1.0 - self.normal((self.rows,)).abs().clamp(max=0.5) / 2)

    def launch(self, workspace: Workspace = FRESH) -> tuple[Tensor, ...]:
        kv_store.store(self.k, self.v, self.slots, self.k_pages, self.v_pages, self.stats)
        lists = (self.table, self.n_pages)
        scaling = self.dim**-0.5
        mass = page_select.estimate_mass(
            self.q, self.stats, *lists, self.tails, scaling, page_tokens=SIZE, workspace=workspace
        )
        pages, kept = page_select.select_pages(
            mass, *lists, self.coverage, Pins(), workspace=workspace
        )
        done = paged_decode.decode_pages(
            self.q,
            self.k_pages,
            self.v_pages,
            pages,
            kept,
            self.tails,
            scaling,
            surprisal=self.nats,
            masses=True,
            workspace=workspace,
        )
        return mass, pages, kept, *(part for part in done if part is not None)


def attention(step: Step, row: int, head: int, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output ``[G, D]`` and page masses ``[pages]`` of one head in float64."""
    length = (len(listed) - 1) * SIZE + int(step.tails[row])
    k, v = (
        pool[head, listed.long()].flatten(0, 1)[:length].double()
        for pool in (step.k_pages, step.v_pages)
    )
    weights = (step.q[row, head].double() @ k.T * step.dim**-0.5).softmax(-1)
    spare = len(listed) * SIZE - length
    share = torch.nn.functional.pad(weights, (0, spare)).unflatten(1, (-1, SIZE)).sum(-1)
    return weights @ v, share.mean(0)


@contextmanager
def no_sync() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [FP16, BF16, FP32])
@pytest.mark.parametrize(("rows", "n", "dim"), [(1, 512, 128), (16, 129, 64), (4, 2048, 80)])
def test_a_step_agrees_with_float64(rows, n, dim, dtype):
    step = Step(rows, n, dim, dtype)
    _, pages, kept, out, _, page_mass, _ = step.launch()
    for row in range(rows):
        for head in (0, HEADS - 1):
            listed = pages[row, head, : int(kept[row, head])]
            want, share = attention(step, row, head, listed)
            bound = ROUNDING[dtype]
            torch.testing.assert_close(out[row, head].double(), want, rtol=bound, atol=bound)
            mass = page_mass[row, head, : len(listed)].double()
            torch.testing.assert_close(mass, share, rtol=1e-2, atol=2e-5)


def test_nothing_waits_for_the_device():
    step = Step(4, 64, 64, BF16)
    logits, lanes = step.normal((4, 5000)), torch.zeros(4, device="cuda")
    seeds, noise = torch.arange(4, device="cuda"), torch.rand(4, device="cuda").double()
    step.launch()  # the first launch compiles and loads
    row_stats.row_stats(logits, lanes[:, None])
    row_stats.gumbel_sample(logits, lanes, seeds, seeds)
    row_stats.draw(logits, lanes, noise)
    with no_sync():
        step.launch()
        row_stats.row_stats(logits, lanes[:, None])
        row_stats.gumbel_sample(logits, lanes, seeds, seeds)
        row_stats.draw(logits, lanes, noise)


def test_a_captured_graph_replays_what_a_launch_computes():
    step, workspace = Step(8, 200, 128, BF16), ReusedWorkspace()
    logits, x = step.normal((8, 50_000)), torch.zeros(8, 2, device="cuda")
    seeds, positions = (torch.arange(8, device="cuda") + i for i in range(2))
    noise = torch.rand(8, device="cuda", dtype=torch.float64)

    def everything() -> tuple[Tensor, ...]:
        stats = row_stats.row_stats(logits, x, workspace=workspace)
        lanes = x[:, 0].contiguous()
        drawn = row_stats.gumbel_sample(logits, lanes, seeds, positions, workspace=workspace)
        inverted = row_stats.draw(logits, lanes, noise, workspace=workspace)
        return *step.launch(workspace), *stats, drawn, *inverted

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        everything()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = everything()
    for _ in range(3):
        step.draw()
        logits.copy_(step.normal((8, 50_000)))
        x.copy_(step.normal((8, 2)) / 4)
        positions += 1
        graph.replay()
        got = [part.clone() for part in held]
        for mine, theirs in zip(got, everything(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [FP16, BF16, FP32])
@pytest.mark.parametrize("n", [49_152, 128_256])
def test_row_statistics_agree_with_float64(n, dtype):
    generator = torch.Generator("cuda").manual_seed(n)
    logits = (torch.randn(32, n, generator=generator, device="cuda") * 4).to(dtype)
    x = torch.randn(32, 2, generator=generator, device="cuda") / 2
    got = row_stats.row_stats(logits, x)
    assert torch.equal(logits.gather(1, got.argmax[:, None])[:, 0], logits.amax(-1))
    for i in range(2):
        log_p = (logits.double() / x[:, i : i + 1].double().exp()).log_softmax(-1)
        h = -(log_p.exp() * log_p).sum(-1)
        v = (log_p.exp() * (log_p + h[:, None]).square()).sum(-1)
        torch.testing.assert_close(got.h[:, i].double(), h, rtol=0, atol=2e-5)
        torch.testing.assert_close(got.v[:, i].double(), v, rtol=1e-5, atol=2e-4)


def test_draws_follow_the_softmax():
    n = 200_000
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125], device="cuda")
    ids = torch.arange(n, device="cuda")
    logits = shares.log().expand(n, -1).contiguous()
    x, noise = torch.zeros(n, device="cuda"), torch.rand(n, device="cuda", dtype=torch.float64)
    spread = (shares * (1 - shares) / n).sqrt()
    for tokens in (
        row_stats.gumbel_sample(logits, x, ids % 97, ids),
        row_stats.draw(logits, x, noise).tokens,
    ):
        assert bool(((tokens.bincount(minlength=4) / n - shares).abs() < 5 * spread).all())
