"""Vidur (Agrawal et al., MLSys 2024) on the same kind of load, from a checkout of its sources.

https://github.com/microsoft/vidur, MIT. Llama-2-7B on an A100, Sarathi chunks of 512, 128
sequences, Splitwise conversation lengths clipped to 4,096 tokens, Poisson 4 requests/s: its own
defaults but for the length trace, the load, and the grid of its random forests, whose default takes
hours. Its predictor cache is filled by the first turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from reports.bench.rows import BenchError

LENGTHS = Path("data") / "processed_traces" / "splitwise_conv.csv"
TIMEOUT_S = 3600.0
MARK = "vidur-timing "
WRAPPER = """
import atexit, json, sys, time
from pathlib import Path
from vidur import simulator

def timed(run):
    def wrapped(self, *args, **kwargs):
        started = time.perf_counter()
        try:
            return run(self, *args, **kwargs)
        finally:
            took.append(time.perf_counter() - started)
    return wrapped

def tell():
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peak = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    sys.stderr.write("\\nvidur-timing " + json.dumps({"serve_s": sum(took), "rss": peak}) + "\\n")

took = []
simulator.Simulator.run = timed(simulator.Simulator.run)
atexit.register(tell)  # runs last: Vidur registers its own output later
from vidur.main import main
main()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vidur:
    """A checkout and the interpreter that has its dependencies."""

    folder: Path
    python: Path

    @classmethod
    def at(cls, folder: Path, python: Path | None = None) -> Vidur:
        """Check that ``folder`` is a checkout of Vidur; by default run it in its own ``.venv``."""
        for needed in (Path("vidur") / "main.py", Path("vidur") / "simulator.py", LENGTHS):
            if not (folder / needed).is_file():
                raise BenchError(f"vidur must be a checkout of Vidur; {folder} has no {needed}")
        own = folder / ".venv" / "bin" / "python"
        chosen = python or (own if own.is_file() else Path(sys.executable))
        if not chosen.is_file():
            raise BenchError(f"vidur-python must be an interpreter; got {chosen}")
        return cls(folder=folder.resolve(), python=chosen.absolute())

    def run(self, requests: int) -> dict[str, float]:
        """Simulate ``requests`` once; return the seconds of its event loop and of the process."""
        with tempfile.TemporaryDirectory() as output:
            started = time.perf_counter()
            done = subprocess.run(
                [str(self.python), "-c", WRAPPER, *_options(requests, output)],
                cwd=self.folder,
                env={**os.environ, "WANDB_MODE": "disabled"},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            elapsed = time.perf_counter() - started
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith(MARK)]
        if done.returncode or not told:
            said = [line for line in lines if not line.startswith(MARK)] or ["no message"]
            raise BenchError(f"vidur: exit code {done.returncode}: {said[-1]}")
        known = json.loads(told[-1].removeprefix(MARK))
        found = {"requests": requests, "serve_s": known["serve_s"], "process_s": elapsed}
        return found | ({"peak_rss_mb": known["rss"][0]} if known["rss"] else {})


def _options(requests: int, output: str) -> list[str]:
    length, interval = "trace_request_length_generator_config", "poisson_request_interval_generator"
    forest = "random_forrest_execution_time_predictor_config"  # sic
    pairs = {
        "request_generator_config_type": "synthetic",
        "synthetic_request_generator_config_num_requests": requests,
        "length_generator_config_type": "trace",
        f"{length}_max_tokens": 4096,
        f"{length}_trace_file": LENGTHS.as_posix(),
        "interval_generator_config_type": "poisson",
        f"{interval}_config_qps": 4,
        f"{forest}_num_estimators": 50,
        f"{forest}_max_depth": 16,
        f"{forest}_min_samples_split": 2,
        f"{forest}_k_fold_cv_splits": 2,
        f"{forest}_num_training_job_threads": 1,
        "metrics_config_output_dir": output,
    }
    given = [part for name, value in pairs.items() for part in (f"--{name}", str(value))]
    return [*given, "--no-metrics_config_store_plots"]
