"""Run a stage in a process of its own: a fault of the card, or a hang, ends that stage alone.

After an illegal access every later call of a process fails, and a compiler that hangs cannot be
interrupted from within; memory that one stage leaves behind is gone with its process as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reports.gpu.record import FAILED, RUNNING
from traces.atomic import atomic_path

GRACE_S = 40.0  # past a stage's seconds: imports, and the point under way when time ran out
HERE = "--here"


def stage_command(arguments: Sequence[str], name: str) -> list[str]:
    """Return the command that runs stage ``name`` with the arguments of the whole run."""
    return [sys.executable, "-m", "reports.gpu", *arguments, "--stages", name, HERE]


def run_apart(command: Sequence[str], path: Path, *, limit_s: float, folder: Path) -> str:
    """Run ``command``, which writes the record at ``path``; return the status found there.

    A record left unfinished, or none, is completed by a row that says how the process ended.
    After ``limit_s`` seconds the process and all it started are killed.
    """
    path.unlink(missing_ok=True)  # else an older run's would be taken for this one's
    ended = run_group(command, limit_s=limit_s, folder=folder)
    return _completed(path, ended)


def run_group(
    command: Sequence[str],
    *,
    limit_s: float,
    folder: Path,
    output: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Run a command as a process group, killed whole after ``limit_s``; say how it ended.

    Args:
        output: takes its stdout and stderr; without it stdout is dropped.
        settings: its environment, by default this process's.
    """
    with ExitStack() as stack:
        log = None if output is None else stack.enter_context(output.open("wb"))
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=None if settings is None else dict(settings),
            stdout=subprocess.DEVNULL if log is None else log,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return f"exit code {process.wait(limit_s)}"
        except subprocess.TimeoutExpired:
            return f"killed after {limit_s:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _completed(path: Path, ended: str) -> str:
    document: dict[str, Any] = {"stage": path.stem, "status": RUNNING, "rows": []}
    if path.is_file():
        document = json.loads(path.read_text(encoding="utf-8"))
    if document["status"] != RUNNING:
        return document["status"]
    document["status"] = FAILED
    document["rows"].append({"what": path.stem, "error": f"the stage's process: {ended}"})
    with atomic_path(path) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return FAILED
