"""Compile the Triton kernels for an H100 on a machine that has none; print what each one takes.

Run by ``test_compiled_for_gpu.py`` in a process of its own: here Triton must not interpret.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from controllers.selection import Pins
from kernels.kv_store import fused as kv_store
from kernels.page_select import fused as page_select
from kernels.page_stats import Bounds, Moments
from kernels.paged_decode import fused as paged_decode
from kernels.row_stats import fused as row_stats

H100 = GPUTarget("cuda", 90, 32)
ALIGNED = [["tt.divisibility", 16]]
TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int32: "i32",
    torch.int64: "i64",
}


def compile_only(self: Any, *args: Any, grid: Any, warmup: bool = False, **named: Any) -> None:
    """Stand in for a launch: specialise on the arguments as a launch does, compile, report."""
    del grid, warmup
    values = dict(zip(self.arg_names, args, strict=False))
    values |= {name: named.pop(name) for name in list(named) if name in self.arg_names}
    types, constants, attributes = {}, {}, {}
    for i, (name, parameter) in enumerate(zip(self.arg_names, self.params, strict=True)):
        value = values[name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name], attributes[(i,)] = f"*{TYPES[value.dtype]}", ALIGNED
        elif isinstance(value, int):
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = ALIGNED
        else:
            types[name] = "fp32"
    source = ASTSource(fn=self, signature=types, constexprs=constants, attrs=attributes)
    report(triton.compile(source, target=H100, options=named))


def report(compiled: Any) -> None:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    ptx = compiled.asm["ptx"]
    row = {
        "kernel": compiled.metadata.name,
        "registers": int(found[1]),
        "spilled": int(found[2]),
        "shared": compiled.metadata.shared,
        "tensor_core": ptx.count("mma.sync"),
        "async_copies": ptx.count("cp.async.c"),
        "case": case,
    }
    print(json.dumps(row), flush=True)


def decode(dtype: torch.dtype, group: int, dim: int, size: int) -> None:
    pool, rows, heads, m = torch.empty(8, 4, size, dim, dtype=dtype), 4, 8, 512
    paged_decode.decode_pages(
        torch.empty(rows, heads, group, dim, dtype=dtype),
        pool,
        pool,
        torch.empty(rows, heads, m, dtype=torch.int32),
        torch.empty(rows, heads, dtype=torch.int32),
        torch.empty(rows, dtype=torch.int32),
        0.1,
        surprisal=torch.empty(4, size),
        masses=True,
    )


def decode_dense(dtype: torch.dtype, group: int, dim: int, size: int, m: int) -> None:
    """As a dense step does: no masses, and one list and one count for all heads."""
    pool, rows, heads = torch.empty(8, 4, size, dim, dtype=dtype), 4, 8
    paged_decode.decode_pages(
        torch.empty(rows, heads, group, dim, dtype=dtype),
        pool,
        pool,
        torch.empty(rows, m, dtype=torch.int32)[:, None].expand(-1, heads, -1),
        torch.empty(rows, dtype=torch.int32)[:, None].expand(-1, heads),
        torch.empty(rows, dtype=torch.int32),
        0.1,
    )


def score(dtype: torch.dtype, dim: int, kind: type) -> None:
    page_select.estimate_mass(
        torch.empty(4, 8, 4, dim, dtype=dtype),
        kind(torch.empty(8, 4, dim), torch.empty(8, 4, dim)),
        torch.empty(4, 512, dtype=torch.int32),
        torch.empty(4, dtype=torch.int32),
        torch.empty(4, dtype=torch.int32),
        0.1,
        page_tokens=16,
    )


def select(n: int) -> None:
    lengths = torch.empty(4, dtype=torch.int32)
    table = torch.empty(4, n, dtype=torch.int32)
    page_select.select_pages(torch.empty(4, 8, n), table, lengths, torch.empty(4), Pins())


def store(dtype: torch.dtype, kind: type) -> None:
    new, pool = torch.empty(8, 16, 128, dtype=dtype), torch.empty(8, 4, 16, 128, dtype=dtype)
    kv_store.store(new, new, torch.empty(16).long(), pool, pool, kind(*torch.empty(2, 8, 4, 128)))


def measure(dtype: torch.dtype, n: int) -> None:
    logits, lanes = torch.empty(16, n, dtype=dtype), torch.empty(16)
    row_stats.row_stats(logits, torch.empty(16, 3))
    row_stats.gumbel_sample(logits, lanes, lanes.long(), lanes.long())
    row_stats.draw(logits, lanes, lanes.double())


FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [
    (decode, (BF16, 4, 128, 16)),
    (decode, (FP16, 3, 64, 16)),
    (decode, (FP32, 4, 128, 16)),
    (decode, (BF16, 8, 128, 128)),
    *((decode_dense, (dtype, 4, 128, 16, 8192)) for dtype in (BF16, FP16, FP32)),
    *((decode_dense, (dtype, 3, 64, 16, 512)) for dtype in (BF16, FP32)),
    *((decode_dense, (dtype, 2, 16, 16, 17)) for dtype in (BF16, FP32)),
    (score, (BF16, 128, Moments)),
    (score, (BF16, 128, Bounds)),
    *((score, (dtype, dim, Moments)) for dtype in (BF16, FP32) for dim in (16, 64)),
    *((select, (n,)) for n in (128, 512, 8192)),
    (store, (BF16, Moments)),
    (store, (FP32, Bounds)),
    (measure, (FP32, 49_152)),
    (measure, (BF16, 128_256)),
    (measure, (BF16, 151_936)),
    (measure, (FP16, 257)),
]

JITFunction.run = compile_only
for launch, arguments in CASES:
    case = f"{launch.__name__}{arguments}"
    launch(*arguments)
